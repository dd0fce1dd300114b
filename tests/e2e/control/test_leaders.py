"""Several reconcilers of one fleet, as processes: one acts, another follows, and one that was stopped does no more."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from emp_orch.procident import ProcessIdentity, alive
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.store.fleet.commands import StampedCommand
from emp_orch.store.fleet.events import decode
from emp_orch.store.fleet.status import FleetStatus
from support.stack.stack import MACHINE, Stack, until

PROGRAMS = ("supervisord", "agent", "simulation", "comfyui-gpu0", "redis-worker-gpu0")
FLEET = "test"
WORKER = "redis-worker-gpu0"
# The lease, a look, and what a busy host needs beside.
TAKEOVER_S = 40.0


class Candidate:
    """One `emp reconcile` of the fleet, with a log of its own."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._log = stack.root / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(stack.argv("reconcile"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def leads(self, fleet: Fleet) -> bool:
        """Whether the last status is its own, under the present epoch."""
        status = fleet.status()
        return f":{self.process.pid}:" in status.leader and status.epoch == fleet.epoch()

    def says(self, words: str) -> None:
        until(f"{self._log.name} says {words!r}", lambda: words in self.log, within_s=TAKEOVER_S)

    def send(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)

    def end(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Fleet:
    """A converged fleet whose own reconciler is stopped; `first` leads, `second` stands by."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.r = redis.Redis.from_url(stack.redis_url, decode_responses=True)
        self.first = Candidate(stack, "first")
        self.candidates = [self.first]
        until("the first leads", lambda: self.first.leads(self), within_s=TAKEOVER_S)
        self.second = Candidate(stack, "second")
        self.candidates.append(self.second)
        self.second.says("standing by")

    def status(self) -> FleetStatus:
        return msgspec.json.decode(str(self.r.get(f"fleet:{FLEET}:status")), type=FleetStatus)

    def epoch(self) -> int:
        return int(str(self.r.get(f"fleet:{FLEET}:epoch")))

    def events(self) -> list[tuple[str, dict[str, str]]]:
        found: Any = self.r.xrange("events")
        return list(found)

    def command_epochs(self) -> list[int]:
        entries: Any = self.r.xrange(f"machine:{MACHINE}:commands")
        return [msgspec.json.decode(fields["command"], type=StampedCommand).epoch for _, fields in entries]

    def startups(self) -> int:
        """How often the machine began to start."""
        events = [decode(entry_id, fields) for entry_id, fields in self.events()]
        return sum(e.type == "machine_startup" and e.data["phase"] == "starting" for e in events)

    def identities(self) -> dict[str, ProcessIdentity]:
        return {name: self.stack.program(name) for name in PROGRAMS}

    def close(self) -> None:
        for candidate in self.candidates:
            candidate.end()
        self.r.close()


@pytest.fixture
def fleet(folder_stack: Stack) -> Iterator[Fleet]:
    folder_stack.up(NUM_GPUS="1")
    _call(folder_stack.layout.control, "stop", "reconcile")
    fleet = Fleet(folder_stack)
    try:
        yield fleet
    finally:
        fleet.close()


def _call(folder: Path, verb: str, program: str) -> None:
    asyncio.run(getattr(Supervisor(folder), verb)(program))


def _stop_program(fleet: Fleet, name: str) -> None:
    """Drift that the leader heals with a command, and the drift's end."""
    before = fleet.stack.program(name)
    _call(fleet.stack.layout.machine(MACHINE), "stop", name)
    until(f"a new {name}", lambda: fleet.stack.program(name) != before)


def test_a_killed_leader_is_followed_by_the_other(fleet: Fleet) -> None:
    before, epoch = fleet.identities(), fleet.epoch()
    fleet.first.send(signal.SIGKILL)
    until("the second leads", lambda: fleet.second.leads(fleet), within_s=TAKEOVER_S)
    assert fleet.epoch() > epoch
    fleet.stack.until_in_sync()
    assert fleet.identities() == before


def test_a_leader_that_ends_in_good_order_is_followed_by_the_other(fleet: Fleet) -> None:
    fleet.first.send(signal.SIGTERM)
    until("the second leads", lambda: fleet.second.leads(fleet), within_s=TAKEOVER_S)
    assert fleet.first.process.wait() == 0
    released = [decode(i, f) for i, f in fleet.events() if f["type"] == "lease_released"]
    assert f":{fleet.first.process.pid}:" in released[-1].data["leader"]


def test_a_leader_that_was_stopped_does_nothing_after_another_led(fleet: Fleet) -> None:
    _stop_program(fleet, "simulation")
    first_epoch = fleet.epoch()
    fleet.first.send(signal.SIGSTOP)
    until("the second leads", lambda: fleet.second.leads(fleet), within_s=TAKEOVER_S)
    second_epoch, startups = fleet.epoch(), fleet.startups()
    assert second_epoch > first_epoch

    _stop_program(fleet, "simulation")
    machine = fleet.stack.program("supervisord")
    os.kill(machine.pid, signal.SIGKILL)
    fleet.first.send(signal.SIGCONT)
    until("a new machine", lambda: fleet.stack.program("supervisord") != machine)
    fleet.first.says(f"leads {FLEET}; standing by")
    fleet.stack.until_in_sync()
    _stop_program(fleet, "comfyui-gpu0")
    fleet.stack.until_in_sync()

    assert fleet.startups() == startups + 1
    assert fleet.command_epochs() == sorted(fleet.command_epochs())
    assert set(fleet.command_epochs()) == {first_epoch, second_epoch}
    assert (fleet.epoch(), fleet.status().epoch) == (second_epoch, second_epoch)
    assert fleet.second.leads(fleet)


def test_what_a_leader_began_before_it_was_stopped_ends_there(fleet: Fleet) -> None:
    """It waits for a drain, is stopped itself, and goes on when another has drained, ended and started the machine."""
    before, startups = fleet.identities(), fleet.startups()
    os.kill(before[WORKER].pid, signal.SIGSTOP)  # so that the drain lasts until we say so
    restart = subprocess.Popen(fleet.stack.argv("restart", MACHINE), stdin=subprocess.DEVNULL)
    try:
        until("the drain is under way", lambda: _state(fleet, WORKER) == "STOPPING")
        fleet.first.send(signal.SIGSTOP)
        until("the second leads", lambda: fleet.second.leads(fleet), within_s=TAKEOVER_S)
        fleet.second.says("asked by cli")
        os.kill(before[WORKER].pid, signal.SIGCONT)
        until("a new machine", lambda: fleet.stack.program("supervisord") != before["supervisord"])
        fleet.stack.until_in_sync()
        assert restart.wait(60) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(before[WORKER].pid, signal.SIGCONT)
        restart.kill()
        restart.wait()
    after = fleet.identities()
    fleet.first.send(signal.SIGCONT)
    fleet.first.says(": not done: ")
    fleet.stack.until_in_sync()
    assert all(alive(who) for who in after.values())
    assert fleet.identities() == after
    assert fleet.startups() == startups + 1
    assert fleet.second.leads(fleet)


def _state(fleet: Fleet, program: str) -> str:
    return asyncio.run(Supervisor(fleet.stack.layout.machine(MACHINE)).process(program)).statename
