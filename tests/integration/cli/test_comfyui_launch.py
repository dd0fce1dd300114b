"""`emp comfyui` as a machine's launcher runs it: the same process becomes ComfyUI, or says in one line why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emp_orch.procident import ProcessIdentity, recorded
from emp_orch.render.quoting import escape
from support.comfyui.checkout import OLD, make_checkout

LAUNCH = (sys.executable, "-m", "emp_orch.machine.launch")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's folder."""
    for name in ("run", "data"):
        (tmp_path / "machine" / name).mkdir(parents=True)
    return tmp_path / "machine"


def launch(machine: Path, *words: str) -> subprocess.Popen[str]:
    """What supervisord does with the command line of a program."""
    environ = {
        **os.environ,
        "EMP_RUN_DIR": str(machine / "run"),
        "EMP_MACHINE_DIR": str(machine),
        "VIRTUAL_ENV": "/emp",
    }
    argv = [*LAUNCH, "comfyui-gpu0", "--", "@emp", "comfyui", *(escape(w) for w in words)]
    return subprocess.Popen(argv, cwd=machine, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(machine: Path, *words: str) -> tuple[int, str, str]:
    process = launch(machine, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_it_becomes_the_program_where_each_slot_has_its_own(machine: Path, tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "Comfy UI ü")
    process = launch(machine, "--path", str(root), "--port", "8189", "--dir", "data/comfyui-gpu0", "--", "--cpu", "a b")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == (
        f"ComfyUI 0.3.64 in {root}, run by {root}/.venv/bin/python\nits files are in {machine}/data/comfyui-gpu0\n"
    )
    told: dict[str, Any] = json.loads((root / "argv.json").read_text())  # it was in the checkout, as ComfyUI expects
    left = recorded(machine / "run" / "comfyui-gpu0")
    assert left is not None
    assert left == ProcessIdentity(pid=told["pid"], start_ticks=left.start_ticks)
    assert told["pid"] == process.pid
    home = f"{machine}/data/comfyui-gpu0"
    assert told["argv"] == [
        *(f"{root}/main.py", "--listen", "127.0.0.1", "--port", "8189", "--output-directory", f"{home}/output"),
        *("--temp-directory", home, "--input-directory", f"{home}/input", "--user-directory", f"{home}/user"),
        *("--database-url", f"sqlite:///{home}/user/comfyui.db", "--cpu", "a b"),
    ]
    assert "VIRTUAL_ENV" not in told["env"]


def test_what_an_old_version_lacks_stands_in_the_log(machine: Path, tmp_path: Path) -> None:
    root = make_checkout(tmp_path / "c", options=OLD)
    status, out, err = run(machine, "--path", str(root), "--cwd", "data", "--dir", "data/c")
    assert (status, err) == (0, "")
    assert "left out --user-directory, which this version does not know: its settings" in out
    assert "left out --database-url, which this version does not know" in out
    assert "--user-directory" not in json.loads((machine / "data" / "argv.json").read_text())["argv"]


def test_why_it_cannot_start_is_one_line_and_a_status_of_its_own(machine: Path, tmp_path: Path) -> None:
    gone = run(machine, "--path", "/no/ComfyUI", "--check")
    assert gone == (
        78,
        "",
        "emp: cannot start ComfyUI: /no/ComfyUI does not exist (path: the folder that ComfyUI was checked out into)\n",
    )
    root = make_checkout(tmp_path / "c")
    assert run(machine, "--path", str(root), "--check")[0] == 0
    assert not (root / "argv.json").exists()
    (machine / "file").write_text("")
    status, _, err = run(machine, "--path", str(root), "--dir", "file/below")
    assert (status, err.count("\n")) == (78, 1)
    assert f"cannot write {machine}/file/below/output: Not a directory" in err
    (root / ".venv/bin/python").write_text("#!/no/such/shell\n")
    status, _, err = run(machine, "--path", str(root))
    assert (status, err) == (78, f"emp: cannot start ComfyUI: {root}/.venv/bin/python: No such file or directory\n")
