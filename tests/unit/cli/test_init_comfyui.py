"""`emp init --comfyui`: which slots it writes, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emp_orch.cli.apply.init import Slots, slots
from emp_orch.errors import EmpError, UsageError
from emp_orch.fleet.model.fleet import Checkout, Fleet, GpuKind
from emp_orch.host.gpus import Broken, Gpu, Look, NoDriver
from emp_orch.manifest import load_text
from support.comfyui.checkout import make_checkout, make_python


def card(index: int) -> Gpu:
    return Gpu(index=index, name="NVIDIA L4", memory_bytes=24 << 30, uuid=f"GPU-{index}")


def raising(error: Exception) -> Callable[[], Look]:
    def look() -> Look:
        raise error

    return look


TWO = Look(gpus=(card(0), card(1)))


def test_a_slot_for_each_gpu() -> None:
    assert slots(lambda: TWO, None) == Slots(num_gpus=2, gpus="nvidia")
    assert slots(lambda: TWO, 1) == Slots(num_gpus=1, gpus="nvidia")
    with pytest.raises(UsageError, match="shows 2 usable GPUs"):
        slots(lambda: TWO, 3)


@pytest.mark.parametrize("look", [raising(NoDriver("no library")), lambda: Look()])
def test_without_a_driver_the_cpu(look: Callable[[], Look]) -> None:
    assert slots(look, None) == Slots(num_gpus=1, gpus="")
    assert slots(look, 3) == Slots(num_gpus=3, gpus="")


def test_a_card_that_does_not_answer_is_left_out_by_name() -> None:
    lost = Look(gpus=(card(1), card(2)), error="GPU 0: GPU is lost")
    assert slots(lambda: lost, None) == Slots(
        num_gpus=2, gpus='{kind: nvidia, ids: ["GPU-1", "GPU-2"]}', note="left out: GPU 0: GPU is lost"
    )
    with pytest.raises(UsageError, match=r"shows 0 usable GPUs \(GPU 0: GPU is lost\)"):
        slots(lambda: Look(error="GPU 0: GPU is lost"), None)


def test_a_driver_that_does_not_work_is_no_reason_to_take_the_cpu() -> None:
    broken = raising(Broken("driver/library version mismatch"))
    with pytest.raises(EmpError, match="does not work: driver/library version mismatch"):
        slots(broken, None)
    assert slots(broken, 4).gpus == "nvidia"


# --- as a user types it


def emp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Where no driver can be found, so that the answer is the same on every host."""
    hidden = {**os.environ, "PYTHONPATH": str(folder / "hidden")}
    (folder / "hidden").mkdir(exist_ok=True)
    (folder / "hidden" / "pynvml.py").write_text("raise ImportError('hidden')\n")
    return subprocess.run(
        [sys.executable, "-m", "emp_orch", *words], cwd=folder, env=hidden, capture_output=True, text=True, timeout=60
    )


def written(folder: Path) -> Fleet:
    return load_text((folder / "emp.yaml").read_text(), file="emp.yaml", environ={})


def test_init_then_validate(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / 'it\'s "my" ${COMFY} ü')
    made = emp(tmp_path, "init", "--comfyui", root.name, "--gpus", "2", "--name", "farm")
    assert (made.returncode, made.stderr) == (0, "")
    fleet = written(tmp_path)
    assert fleet.name == "farm"
    assert next(iter(fleet.services.values())).checkout == Checkout(path=str(root), args=("--cpu",))
    assert (fleet.machines[0].num_gpus, fleet.machines[0].gpus.kind) == (2, GpuKind.NONE)
    valid = emp(tmp_path, "validate")
    assert (valid.stdout, valid.stderr) == ("emp.yaml is valid: fleet farm, 1 machine, 1 service, 2 GPU slots\n", "")


def test_the_interpreter_that_was_named_is_written(tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c", venv=None)
    make_python(tmp_path / "conda" / "python")
    refused = emp(tmp_path, "init", "--comfyui", "c")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"emp: --comfyui: {root} has no interpreter of its own: neither {root}/.venv/bin/python nor"
        f" {root}/venv/bin/python is there\n"
        "     --python: the interpreter that it was installed for\n"
    )
    assert not (tmp_path / "emp.yaml").exists()
    assert emp(tmp_path, "init", "--comfyui", "c", "--python", "conda/python").returncode == 0
    found = next(iter(written(tmp_path).services.values())).checkout
    assert found is not None
    assert found.python == str(tmp_path / "conda" / "python")


def test_the_path_is_written_without_steps_up_and_with_its_links(tmp_path: Path) -> None:
    make_checkout(tmp_path / "deep" / "ComfyUI-0.3")
    (tmp_path / "ComfyUI").symlink_to(tmp_path / "deep" / "ComfyUI-0.3")
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    assert emp(fleet, "init", "--comfyui", "../ComfyUI").returncode == 0
    assert next(iter(written(fleet).services.values())).checkout == Checkout(
        path=str(tmp_path / "ComfyUI"), args=("--cpu",)
    )


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    refused = emp(tmp_path, "init", "--comfyui", "c")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"emp: --comfyui: {tmp_path}/c is no checkout of ComfyUI: it has no main.py and no comfy/cli_args.py\n"
        "     --comfyui: the folder with ComfyUI's main.py\n"
    )
    alone = emp(tmp_path, "init", "--gpus", "2")
    assert (alone.returncode, alone.stderr.split("\n")[0]) == (2, "emp: --python and --gpus go with --comfyui")
    assert not (tmp_path / "emp.yaml").exists()
