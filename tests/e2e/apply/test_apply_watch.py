"""`emp apply --watch`: each edit is applied, a broken one is told and leaves the last good generation in force."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.stack.stack import MACHINE, Stack, sleeps, until


class Watch:
    """`emp apply --watch` as a process, and what it has said so far."""

    def __init__(self, stack: Stack, *args: str, terminal: int | None = None) -> None:
        """With a `terminal` it asks there, else it has been told yes."""
        self._process = subprocess.Popen(
            stack.argv("apply", "--watch", *(["-y"] if terminal is None else []), *args),
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self.told: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self.said)),
            threading.Thread(target=self._read, args=(self._process.stderr, self.told)),
        ]
        for reader in self._readers:
            reader.start()
        self._shown = 0

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        with pipe:
            lines.extend(line.rstrip("\n") for line in pipe)

    def next(self) -> dict[str, Any]:
        """The next outcome of `--json`."""
        until(f"outcome {self._shown + 1}; {self.told[-5:]}", lambda: len(self.said) > self._shown)
        self._shown += 1
        found: dict[str, Any] = json.loads(self.said[self._shown - 1])
        return found

    def until_told(self, text: str, times: int = 1) -> None:
        until(f"{text!r} in {self.told}", lambda: sum(text in line for line in self.told) >= times)

    def until_it_asks(self) -> None:
        until("it waits for the answer", lambda: sleeps(self._process.pid))

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        code = self._process.wait(60)
        for reader in self._readers:
            reader.join(20)
        return code

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.end()


@pytest.fixture
def watches() -> Iterator[list[Watch]]:
    """Every watch put in here is over at the end of the test."""
    started: list[Watch] = []
    yield started
    for watch in started:
        watch.kill()


def _edited(stack: Stack, **machine: object) -> str:
    """The text of emp.yaml with keys of the default machine set."""
    config = yaml.safe_load(stack.file.read_text())
    config["machines"][MACHINE].update(machine)
    return yaml.safe_dump(config, sort_keys=False)


def _edit(stack: Stack, **machine: object) -> None:
    """As editors do it: a new file in the old one's place."""
    new = stack.root / ".emp.yaml.swp"
    new.write_text(_edited(stack, **machine))
    new.replace(stack.file)


def _gist(outcome: dict[str, Any]) -> tuple[str, int]:
    return outcome["outcome"], outcome["generation"]


def test_edits_broken_and_repaired(folder_stack: Stack, watches: list[Watch]) -> None:
    stack = folder_stack
    _edit(stack, num_gpus=1)
    watch = Watch(stack, "--json")
    watches.append(watch)
    first = watch.next()
    assert (_gist(first), first["changed"], first["converged"]) == (("applied", 1), True, True)
    watch.until_told("watching emp.yaml")
    kept = stack.program("comfyui-gpu0")

    for number in (4, 3, 2):  # a burst, in place
        stack.file.write_text(_edited(stack, num_gpus=number))
    assert _gist(watch.next()) == ("applied", 2)
    assert len(stack.running(" worker --machine")) == 2
    assert stack.program("comfyui-gpu0") == kept

    good = stack.file.read_text()
    stack.file.write_text(good.replace("num_gpus: 2", "num_gpus: two\n    nm: 1"))
    broken = watch.next()
    assert _gist(broken) == ("invalid", 2)
    assert len(broken["problems"]) == 2
    assert all("emp.yaml:" in p for p in broken["problems"])
    assert stack.diff()[0] == 0, "the last good generation runs on"
    stack.file.write_text(good)
    assert _gist(watch.next()) == ("unchanged", 2)

    stack.root.joinpath(".env").write_text("not a variable\n")
    assert _gist(watch.next()) == ("invalid", 2)
    stack.root.joinpath(".env").unlink()
    assert _gist(watch.next()) == ("unchanged", 2)

    stack.file.unlink()
    assert _gist(watch.next()) == ("invalid", 2)
    stack.file.write_text(good)
    assert _gist(watch.next()) == ("unchanged", 2)

    assert watch.interrupt() == 0
    assert watch.told[-1] == "no longer watching; the fleet runs on with generation 2"
    assert stack.program("comfyui-gpu0") == kept
    assert stack.diff()[0] == 0


def test_secrets_in_files_and_env(folder_stack: Stack, watches: list[Watch]) -> None:
    stack = folder_stack
    secret = stack.root / "secrets" / "token"
    secret.parent.mkdir()
    _edit(stack, num_gpus="${SLOTS:-1}", services=[], env={})
    watch = Watch(stack, "--json")
    watches.append(watch)
    assert _gist(watch.next()) == ("applied", 1)
    watch.until_told("watching emp.yaml")
    stack.root.joinpath(".env").write_text("SLOTS=0\n")
    assert _gist(watch.next()) == ("applied", 2)

    _edit(stack, env={"TOKEN": {"file": "secrets/token"}})
    missing = watch.next()
    assert _gist(missing) == ("invalid", 2)
    assert "secrets/token: No such file" in missing["problems"][0]
    secret.write_text("hunter2\n")
    assert _gist(watch.next()) == ("applied", 3)
    secret.write_text("hunter3\n")
    assert _gist(watch.next()) == ("applied", 3)
    watch.until_told("secret file:secrets/token has another value")
    assert b"hunter3" in stack.layout.secrets.read_bytes()
    assert watch.interrupt() == 0
    assert "hunter" not in "\n".join(watch.said + watch.told)


def test_problems_are_told_once_and_a_wait_in_vain_is_given_up(folder_stack: Stack, watches: list[Watch]) -> None:
    stack = folder_stack
    _edit(stack, num_gpus=1)
    watch = Watch(stack)
    watches.append(watch)
    watch.until_told("watching emp.yaml")
    assert watch.said[0] == "test is ready: generation 1, 1 machine, 1 GPU slot"
    good = stack.file.read_text()

    broken = good.replace("scale: per_gpu", "scale: per_gp")
    stack.file.write_text(broken)
    watch.until_told("emp.yaml cannot be applied; generation 1 stays in force:")
    stack.file.write_text(f"{broken}# still\n")
    watch.until_told("emp.yaml cannot be applied, as before; generation 1 stays in force")
    assert sum('did you mean "per_gpu"?' in line for line in watch.told) == 1

    stack.file.write_text(good.replace("/system_stats", "/nowhere"))
    until("it is published", lambda: stack.diff()[1]["generation"] == 2)
    watch.until_told("generation 1 → 2")
    stack.file.write_text(good)
    watch.until_told("emp.yaml changed before generation 2 was ready")
    until("it is ready", lambda: "test is ready: generation 3, 1 machine, 1 GPU slot" in watch.said)
    assert watch.interrupt() == 0
    assert stack.diff()[0] == 0


def test_each_change_is_asked_about(folder_stack: Stack, watches: list[Watch], terminal: tuple[int, int]) -> None:
    stack, (ours, theirs) = folder_stack, terminal
    _edit(stack, num_gpus=0, services=[])
    stack.up()
    watch = Watch(stack, terminal=theirs)
    watches.append(watch)
    watch.until_told("watching emp.yaml")
    _edit(stack, num_gpus=1)
    watch.until_told("run on untouched")
    os.write(ours, b"n\n")
    watch.until_told("not applied; generation 1 stays in force")
    _edit(stack, num_gpus=2)
    watch.until_told("run on untouched", times=2)
    os.write(ours, b"y\n")
    until("it is ready", lambda: "test is ready: generation 2, 1 machine, 2 GPU slots" in watch.said)
    _edit(stack, num_gpus=1)
    watch.until_told("run on untouched", times=3)
    watch.until_it_asks()
    assert watch.interrupt() == 0
    assert watch.told[-1].endswith("no longer watching; the fleet runs on with generation 2")
    assert stack.diff()[1]["generation"] == 2


def test_a_watch_that_cannot_begin(folder_stack: Stack, watches: list[Watch]) -> None:
    stack = folder_stack
    nobody = stack.run("apply", "--watch")
    assert nobody.returncode == 2 and "nobody to ask" in nobody.stderr
    stack.file.write_text("version: 1\n")
    watch = Watch(stack)
    watches.append(watch)
    assert watch.end() == 2
    assert any("missing" in line for line in watch.told)
    assert not stack.layout.state.exists()
