"""What people do beside applying: run commands in machines, look at what they use, read their logs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.stack.stack import MACHINE, Stack

BOX, SECRET = "box", "s3cret-of-the-machine"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A machine of processes that runs, with a secret; and a box that never joined."""
    made = Stack(tmp_path_factory.mktemp("people"))
    text = made.file.read_text()
    env = "    env: {GREETING: hello, THE_SECRET: {env: PEOPLE_SECRET}}\n"
    text = text.replace("    runtime: process  ", f"{env}    runtime: process  ", 1)
    box = f"machines:\n  {BOX}: {{runtime: external, num_gpus: 1, services: [comfyui]}}\n"
    made.file.write_text(text.replace("machines:\n", box, 1))
    try:
        made.up(True, PEOPLE_SECRET=SECRET)
        yield made
    finally:
        made.run("down")
        left = made.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


# -- exec


def test_a_command_has_the_machines_folder_and_environment(stack: Stack) -> None:
    assert stack.ok("exec", MACHINE, "--", "pwd").strip() == str(stack.layout.machine(MACHINE))
    lines = stack.ok("exec", MACHINE, "env").splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    assert (given["MACHINE_ID"], given["NUM_GPUS"], given["GREETING"]) == (MACHINE, "2", "hello")
    assert given["HUB_REDIS_URL"] == stack.redis_without_login
    assert "THE_SECRET" not in given and "PEOPLE_SECRET" not in given
    assert SECRET not in "\n".join(lines)


def test_the_exit_code_and_the_streams_are_the_commands(stack: Stack) -> None:
    done = stack.run("exec", MACHINE, "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")
    piped = subprocess.run(
        stack.argv("exec", MACHINE, "--", "tr", "a-z", "A-Z"), input="piped", capture_output=True, text=True, timeout=60
    )
    assert (piped.returncode, piped.stdout) == (0, "PIPED")
    words = stack.ok("exec", MACHINE, "--", "printf", "%s|", "two words", "$HOME", "--", "-x")
    assert words == "two words|$HOME|--|-x|"
    # What is ignored here must not be so there: a writer ends when its reader has gone.
    assert stack.ok("exec", MACHINE, "--", "sh", "-c", "yes | head -n 1") == "y\n"
    for program, code in (("no-such-program", 127), (str(stack.root), 126)):
        done = stack.run("exec", MACHINE, "--", program)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(f"emp: {program}: ") and len(done.stderr.splitlines()) == 1


def test_a_command_has_the_callers_terminal(stack: Stack) -> None:
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            stack.argv("exec", MACHINE, "--", "sh", "-c", "tty; read line; echo got $line"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, b"a line\n")
        assert child.wait(60) == 0
        shown = _all_of(ours)
    finally:
        os.close(ours)
    assert "/dev/pts/" in shown
    assert "got a line" in shown


def _all_of(terminal: int) -> str:
    """What was written to a terminal whose other end is closed."""
    said = b""
    with suppress(OSError):  # EIO is its end
        while block := os.read(terminal, 4096):
            said += block
    return said.decode()


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (MACHINE.removesuffix("l"), 2, f"did you mean {MACHINE}?"),
        ("../control", 2, "there is no machine '../control'"),
        (BOX, 1, f"{BOX} is a box of its own: emp cannot reach it"),
    ],
)
def test_what_cannot_be_reached_is_refused(stack: Stack, name: str, code: int, said: str) -> None:
    done = stack.run("exec", name, "--", "true")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_where_nothing_was_applied(tmp_path: Path) -> None:
    done = Stack(tmp_path).run("exec", MACHINE, "--", "true")
    assert done.returncode == 2
    assert "no fleet was applied" in done.stderr


# -- top


def test_what_machines_use(stack: Stack) -> None:
    found = {m["machine_id"]: m for m in json.loads(stack.ok("top", "--json"))["machines"]}
    assert set(found) == {MACHINE, BOX}
    used, box = found[MACHINE], found[BOX]
    expected = {"supervisord", "agent", "simulation", "comfyui-gpu0", "comfyui-gpu1"}
    programs = {p["name"]: p for p in used["programs"]}
    assert set(programs) == {*expected, "redis-worker-gpu0", "redis-worker-gpu1"}
    for name, program in programs.items():
        assert program["pid"] == stack.program(name).pid
        assert program["memory"] > 1024**2 and program["cpu"] is not None
    assert used["memory"] == sum(p["memory"] for p in programs.values()) < used["limit"]
    assert (box["cpu"], box["memory"], box["own_box"]) == (None, None, True)
    assert box["why"].endswith("it never reported")


def test_one_machine_and_a_row_of_snapshots(stack: Stack) -> None:
    lines = stack.ok("top", MACHINE, "-n", "2", "-i", "0.2", "--json", "--sort", "name").splitlines()
    assert [[m["machine_id"] for m in json.loads(line)["machines"]] for line in lines] == [[MACHINE]] * 2
    names = [p["name"] for p in json.loads(lines[0])["machines"][0]["programs"]]
    assert names == sorted(names)
    shown = stack.ok("top").splitlines()
    assert shown[0].split() == ["MACHINE", "WHERE", "CPU", "%", "MEMORY", "OF", "PROCESSES"]
    assert shown[1].startswith(f"{MACHINE}  this host ")
    assert shown[-1].startswith(f"{BOX} ") and "a box of its own" in shown[-1]
    unknown = stack.run("top", "nobody")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no machine 'nobody'" in unknown.stderr
    assert stack.run("top", BOX).returncode == 0
    assert stack.run("top", "--once", "-n", "2").returncode == 2


def test_live_on_a_terminal(stack: Stack) -> None:
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(stack.argv("top", "-i", "0.2"), stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        while b"redis-worker-gpu0" not in shown:
            shown += os.read(ours, 4096)
        child.send_signal(signal.SIGINT)
        rest = shown + _all_of(ours).encode()
        assert child.wait(60) == 0
    finally:
        os.close(ours)
    assert b"\x1b[?1049h" in rest
    # Its screen goes, the cursor comes back.
    assert {b"\x1b[?25h", b"\x1b[?1049l"} <= set(re.findall(rb"\x1b\[\?\d+[hl]", rest[-40:]))
    assert b"Traceback" not in rest
