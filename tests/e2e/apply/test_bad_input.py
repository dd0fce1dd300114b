"""Bad input at the front door: an error that names the thing and the way out, the right exit code, no trace left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from support.stack.stack import Stack

NO_TRACEBACK = "Traceback (most recent call last)"


def _refused(stack: Stack, code: int, *words: str, args: tuple[str, ...] = ("apply", "-y"), **env: str) -> str:
    done = stack.run(*args, **env)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert NO_TRACEBACK not in said
    for word in words:
        assert word in said, f"{word!r} is missing in:\n{said}"
    assert stack.leftovers() == []
    return said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("machines: [\n", ("emp.yaml:",)),
        ("version: 1\nname: a\nmachins: {}\n", ("emp.yaml:3:1", "machins", "machines")),
        ("version: 1\nname: a\nname: b\n", ("emp.yaml:3:1", "name")),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)),
            ("emp.yaml:", "alias"),
        ),
        ("", ("emp.yaml",)),
    ],
    ids=["malformed", "unknown-key", "duplicate-key", "alias-bomb", "empty"],
)
def test_bad_yaml(folder_stack: Stack, text: str, words: tuple[str, ...]) -> None:
    folder_stack.file.write_text(text)
    _refused(folder_stack, 2, *words)
    assert not folder_stack.layout.state.exists()


def test_no_file(folder_stack: Stack) -> None:
    folder_stack.file.unlink()
    _refused(folder_stack, 2, "emp.yaml", "emp init")


@pytest.mark.parametrize("what", ["api", "monitor", "redis", "comfyui"])
def test_port_taken(folder_stack: Stack, what: str) -> None:
    port = folder_stack.ports[what]
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        _refused(folder_stack, 1, f"port {port}", f"pid {os.getpid()}", "emp.yaml")
    assert not folder_stack.layout.settings.exists()


def test_redis_unreachable(folder_stack: Stack) -> None:
    text = folder_stack.file.read_text()
    port = folder_stack.ports["redis"]
    folder_stack.file.write_text(text.replace("url: embedded", f"url: redis://:hunter2@127.0.0.1:{port}/0", 1))
    said = _refused(folder_stack, 3, f"127.0.0.1:{port}", "does not answer")
    assert "hunter2" not in said
    assert not folder_stack.layout.settings.exists()


def test_nobody_to_ask(folder_stack: Stack) -> None:
    _refused(folder_stack, 2, "-y", args=("apply",))
    assert not folder_stack.layout.settings.exists()


def test_secret_without_a_value(folder_stack: Stack) -> None:
    text = folder_stack.file.read_text()
    folder_stack.file.write_text(
        text.replace("    runtime: process", "    env: {TOKEN: {env: NO_SUCH}}\n    runtime: process", 1)
    )
    _refused(folder_stack, 2, "NO_SUCH", "TOKEN")
    assert not folder_stack.layout.settings.exists()


@pytest.mark.parametrize("command", ["diff", "down", "restart x", "jobs", "submit simulation", "events"])
def test_nothing_was_applied_here(folder_stack: Stack, command: str) -> None:
    _refused(folder_stack, 2, "emp apply", args=tuple(command.split()))


def test_no_permission_on_the_state_folder(folder_stack: Stack) -> None:
    # Root may write anywhere; without these capabilities root is like anybody else.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    folder_stack.root.chmod(0o555)
    try:
        done = subprocess.run(
            [*drop, sys.executable, "-m", "emp_orch", "apply", "-y"],
            cwd=folder_stack.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        folder_stack.root.chmod(0o755)
    assert done.returncode == 1, done.stdout + done.stderr
    assert NO_TRACEBACK not in done.stderr
    assert f"cannot write in {folder_stack.root}: Permission denied" in done.stderr
    assert folder_stack.leftovers() == []


def test_a_store_that_takes_nothing(folder_stack: Stack) -> None:
    place = folder_stack.root / "store"
    place.write_text("no folder")
    folder_stack.file.write_text(folder_stack.file.read_text() + f"\njobs: {{artifacts: 'file://{place}'}}\n")
    _refused(folder_stack, 1, "the artifact store does not work", str(place), "jobs.artifacts")
    assert not folder_stack.layout.settings.exists()
