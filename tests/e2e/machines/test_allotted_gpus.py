"""A fleet on GPUs that somebody else allotted: on a host by the shell of the apply, on a box by its own environment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from emp_orch.fleet.model.allotment import variables
from support.stack.box import BOX, Box
from support.stack.stack import Stack, until

HERE = "here"
# Each program leaves what it sees in a file of its own.
TELLER = 'printf %s "$CUDA_VISIBLE_DEVICES" > "$0.new"; mv "$0.new" "$0"; exec sleep 100000'


# All is up but the box, which a person starts.
BOX_WAITS = 1


class Lab:
    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "fleet")
        self.box = Box(folder / "joined")
        config = yaml.safe_load(self.stack.file.read_text())
        config["services"] = {
            "slot": {"scale": "per_gpu", "command": ["sh", "-c", TELLER, "slot${gpu}"]},
            "all": {"scale": "per_machine", "command": ["sh", "-c", TELLER, "all"]},
        }
        gpus = {"num_gpus": 2, "gpus": "nvidia", "services": ["slot", "all"]}
        config["machines"] = {HERE: gpus, BOX: {**gpus, "runtime": "external"}}
        self.stack.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def apply(self, *options: str, **environ: str) -> tuple[int, str]:
        """`emp apply` in a shell that says nothing else of GPUs."""
        argv = self.stack.argv("apply", "-y", "--timeout", "60", *options)
        said = variables(os.environ)
        clean = {k: v for k, v in os.environ.items() if k not in said}
        done = subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, env={**clean, **environ}
        )
        return done.returncode, done.stdout + done.stderr

    def seen(self, machine: Path) -> dict[str, str]:
        files = [machine / name for name in ("slot0", "slot1", "all")]
        return {path.name: path.read_text() for path in files if path.exists()}

    def until_seen(self, machine: Path, slot0: str, slot1: str, whole: str) -> None:
        wanted = {"slot0": slot0, "slot1": slot1, "all": whole}
        until(f"{wanted}", lambda: self.seen(machine) == wanted, shown=lambda: f"{self.seen(machine)}")

    @property
    def here(self) -> Path:
        return self.stack.layout.machine(HERE)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.box.clear()
    made.stack.run("down")
    assert made.stack.leftovers() == []


def test_slots_are_what_was_allotted(lab: Lab) -> None:
    code, said = lab.apply(CUDA_VISIBLE_DEVICES="3")
    assert code == 2 and f"machine {HERE} asks for 2 GPUs, and CUDA_VISIBLE_DEVICES=3 allots 1 GPU" in said
    assert "emp.yaml:" in said and not lab.stack.layout.control.exists()

    code, said = lab.apply(CUDA_VISIBLE_DEVICES="2,3")
    assert code == BOX_WAITS and "GPUs of this host: CUDA_VISIBLE_DEVICES=2,3: slot 0, 1, … are 2, 3" in said, said
    lab.until_seen(lab.here, "2", "3", "2,3")

    # A shell that says nothing takes nothing, and what the reconciler starts again is on the same.
    code, said = lab.apply()
    assert code == BOX_WAITS and "generation 1, 2 machines, 4 GPU slots; yet to join" in said, said
    for name in ("slot0", "slot1", "all"):
        (lab.here / name).unlink()
    os.kill(lab.stack.program("supervisord", HERE).pid, signal.SIGKILL)
    lab.until_seen(lab.here, "2", "3", "2,3")

    # Another allotment is shown before it counts.
    code, said = lab.apply(SLURM_JOB_GPUS="5,6")
    assert code == BOX_WAITS, said
    assert "SLURM_JOB_GPUS=5,6: slot 0, 1, … are 5, 6 (before: CUDA_VISIBLE_DEVICES=2,3: slot 0, 1, … are 2, 3)" in said
    assert "slot-gpu0" in said and "all" in said
    lab.until_seen(lab.here, "5", "6", "5,6")
    refused = lab.stack.run("scale", HERE, "3", "-y")
    assert refused.returncode == 2 and "asks for 3 GPUs, and SLURM_JOB_GPUS=5,6 allots 2 GPUs" in refused.stderr

    # `emp start` takes what is on record. After `emp down` the next apply begins anew.
    lab.stack.ok("down")
    other = lab.stack.run("start", CUDA_VISIBLE_DEVICES="0,1")
    assert other.returncode == 2 and "this shell was given other GPUs (CUDA_VISIBLE_DEVICES=0,1: " in other.stderr
    code, said = lab.apply()
    assert code == BOX_WAITS, said
    lab.until_seen(lab.here, "0", "1", "")


def test_a_box_that_joined_goes_by_its_own_environment(lab: Lab) -> None:
    code, said = lab.apply(CUDA_VISIBLE_DEVICES="2,3")
    assert code == BOX_WAITS, said
    line = lab.stack.ok("machine", "join", BOX, "--plain").strip()
    lab.box.start(line, CUDA_VISIBLE_DEVICES="GPU-a,7")
    assert lab.box.ended() == 1
    assert f"machine {BOX} asks for 2 GPUs, and CUDA_VISIBLE_DEVICES=GPU-a,7 allots 1 GPU on this box" in lab.box.said()
    lab.box.start(CUDA_VISIBLE_DEVICES="GPU-a,GPU-b")
    lab.until_seen(lab.box.machine, "GPU-a", "GPU-b", "GPU-a,GPU-b")
    # One that is too many is refused, and what runs, runs on.
    config = yaml.safe_load(lab.stack.file.read_text())
    config["machines"][BOX]["num_gpus"] = 3
    lab.stack.file.write_text(yaml.safe_dump(config))
    code, said = lab.apply("--no-wait")
    assert code == 0, said
    why = "asks for 3 GPUs, and CUDA_VISIBLE_DEVICES=GPU-a,GPU-b allots 2 GPUs on this box"
    until("the reason in the journal", lambda: why in lab.stack.ok("journal", "--machine", BOX))
    assert lab.box.program("slot-gpu1") is not None
