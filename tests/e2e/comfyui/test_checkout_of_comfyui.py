"""From a checkout of ComfyUI to a picture, as a new user goes. The checkout's main.py is the twin.

Two slots; each has folders of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.services.simulation.png import decode
from support.comfyui.checkout import TWIN, make_checkout
from support.stack.stack import MACHINE, Stack, until

SLOTS = ("comfyui-gpu0", "comfyui-gpu1")


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if "__pycache__" not in p.parts}


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def after(words: list[str], option: str) -> Path:
    return Path(words[words.index(option) + 1])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("opt") / "ComfyUI", main=TWIN)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Stack]:
    """What `emp init --comfyui` writes, on ports of our own."""
    stack = Stack(tmp_path_factory.mktemp("fleet"))
    stack.ok("init", "--force", "--comfyui", str(checkout), "--gpus", "2")
    text = stack.file.read_text()
    for old, new in (
        ("\napi: ", f"\nredis:   {{port: {stack.ports['redis']}}}\napi: "),
        ("port: 3331", f"port: {stack.ports['api']}"),
        ("port: 3333", f"port: {stack.ports['monitor']}"),
        ("port: 8188", f"port: {stack.ports['comfyui']}"),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    stack.file.write_text(text)
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")
        left = stack.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def submit(stack: Stack, *, color: int, seconds: float) -> subprocess.Popen[str]:
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": color}},
        "2": {"class_type": "TestSleep", "inputs": {"images": ["1", 0], "seconds": seconds, "interruptible": True}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "same"}},
    }
    payload = json.dumps({"workflow": workflow})
    argv = stack.argv("submit", "comfyui", "--payload", payload, "--wait", "--timeout", "60", "--json")
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=90)
    job: dict[str, Any] = json.loads(out)
    assert (process.returncode, job["status"]) == (0, "completed"), out
    return job


def picture(stack: Stack, job: dict[str, Any]) -> bytes:
    (file,) = (stack.layout.artifacts / job["id"]).rglob("*.png")
    return decode(file.read_bytes()).rgb


def test_each_slot_is_the_checkout_with_folders_of_its_own(stack: Stack, checkout: Path) -> None:
    told = [command_line(stack.program(name).pid) for name in SLOTS]
    home = stack.layout.machine(MACHINE) / "data"
    for name, words in zip(SLOTS, told, strict=True):
        assert str(checkout / "main.py") in words
        for option in ("--output-directory", "--temp-directory", "--input-directory", "--user-directory"):
            assert after(words, option).is_relative_to(home / name), option
        assert words[words.index("--database-url") + 1] == f"sqlite:///{home}/{name}/user/comfyui.db"
    assert files(checkout) == {
        *("main.py", "comfyui_version.py", "comfy", "comfy/cli_args.py", "models", "models/checkpoints"),
        *(".venv", ".venv/bin", ".venv/bin/python"),
    }


def test_a_job_for_each_slot_gets_its_own_picture(stack: Stack) -> None:
    """Each begins while the other runs, under the same file name."""
    running = [submit(stack, color=color, seconds=1.5) for color in (0xFF0000, 0x0000FF)]
    red, blue = [ended(process) for process in running]
    assert {red["worker_id"], blue["worker_id"]} == {f"{MACHINE}-worker-0", f"{MACHINE}-worker-1"}
    assert picture(stack, red) == b"\xff\x00\x00" * 16 * 8
    assert picture(stack, blue) == b"\x00\x00\xff" * 16 * 8


def test_a_slot_that_is_killed_comes_back_in_its_own_folders(stack: Stack) -> None:
    other, before = stack.program(SLOTS[1]), stack.program(SLOTS[0])
    os.kill(before.pid, signal.SIGKILL)
    until("another process", lambda: stack.program(SLOTS[0]) != before)
    words = until("it became the program", lambda: _main(stack))
    assert after(words, "--output-directory") == stack.layout.machine(MACHINE) / "data" / SLOTS[0] / "output"
    stack.until_in_sync()
    assert stack.program(SLOTS[1]) == other


def _main(stack: Stack) -> list[str]:
    words = command_line(stack.program(SLOTS[0]).pid)
    return words if "--output-directory" in words else []


def test_a_checkout_that_is_gone_is_refused_before_anything_is_touched(stack: Stack, checkout: Path) -> None:
    whole = stack.file.read_text()
    stack.file.write_text(whole.replace(str(checkout), f"{checkout}-gone"))
    try:
        refused = stack.run("apply", "-y")
    finally:
        stack.file.write_text(whole)
    assert refused.returncode == 2
    assert f"services.comfyui.path: {checkout}-gone does not exist" in refused.stderr
    stack.until_in_sync()


def test_doctor_says_which_comfyui_it_is(stack: Stack, checkout: Path) -> None:
    told = json.loads(stack.run("doctor", "--json").stdout)
    (found,) = [f for f in told["findings"] if f["check"] == "comfyui"]
    assert found["what"] == f"{checkout}/.venv/bin/python has no torch, and comfyui needs it"
