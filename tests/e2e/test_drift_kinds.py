"""Kinds of drift on a real fleet: caused, told by `emp diff --json` with its line, healed, whole in the journal.

The reconciler is paused while a difference is caused, so that it is surely seen; resumed, it heals it. What is not
caused here, and where it is, stands in ELSEWHERE.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from stack import MACHINE, Stack, until

from emp_orch.fleet.kinds import Kind
from emp_orch.runtimes.supervisor import Supervisor

STEERED = """\
  steered: {scale: per_machine, command: [sh, -c, "cat go && exec sleep 100000"], start: 1s}
"""
GHOST = f"{MACHINE}-worker-9"

ELSEWHERE = {
    Kind.PROGRAM_STARTING: "test_faults: every killed program, where a look falls into its start",
    Kind.WORKER_STARTING: "test_faults: likewise",
    Kind.MACHINE_STALE: "test_faults: a hanging agent",
    Kind.MACHINE_SURPLUS: "test_scale: a removed machine stays until pruned",
    Kind.PROGRAM_MISSING: "unit: between a configuration that was written and supervisord's reading of it",
    Kind.GENERATION_BEHIND: "unit: between a generation that changes nothing and the next report",
    Kind.PROGRAM_SURPLUS: "unit: supervisord has no program that its file does not name, but for a moment",
    Kind.PROGRAM_WAITING: "unit: it needs a set-up step that fails while what comes after it is stopped",
    Kind.WORKER_MISSING: "unit: a living worker writes its report anew at its next heartbeat",
    Kind.WORKER_WRONG_MACHINE: "unit: no worker of this emp can be started so",
    Kind.WORKER_OUTDATED: "unit: there is one version of emp here",
    Kind.WORKER_WRONG_CAPABILITIES: "unit: a worker's words come from the configuration that is compared first",
    Kind.CONNECTOR_BROKEN: "integration: test_connector_packages",
    Kind.CONNECTOR_UNHEALTHY: "unit: on one host the program's own state comes first",
    Kind.MACHINE_CONFLICT: "integration: test_machine_tells",
    Kind.MACHINE_WRONG_REDIS: "unit: it needs a second Redis at the same fleet",
    Kind.MACHINE_UNREACHABLE: "unit: the process runtime always answers",
    Kind.MACHINE_FOREIGN: "unit: as above",
    Kind.GPU_LOST: "unit: it needs an NVIDIA driver",
    Kind.GPU_MISSING: "unit: it needs an NVIDIA driver",
}
# A fleet that comes up shows them, and a machine that was killed shows them again.
ON_THE_WAY = {Kind.MACHINE_BOOTING, Kind.MACHINE_STARTING}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """`cause` makes the difference, and undoes what would keep it from being healed when it is left.

    `line`: what stands in the line of emp.yaml that is named; None: no line is. `journal`: whether the reconciler
    itself must have seen it, `decided`: and decided something about it.
    """

    kind: Kind
    subject: str
    line: str | None
    cause: Callable[[Stack], Any]
    journal: bool = True
    decided: bool = True


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("kinds"))
    text = stack.file.read_text()
    for old, new in (
        ("machines:\n", f"{STEERED}machines:\n"),
        (
            "services: [simulation, comfyui]",
            "services: [simulation, comfyui, steered]\n    worker: {drain_timeout: 2s}",
        ),
        ("reconcile: {interval: 2s, stale_after: 10s", "reconcile: {interval: 1s, stale_after: 4s"),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    stack.file.write_text(text)
    go = stack.layout.machine(MACHINE) / "go"
    go.parent.mkdir(parents=True)
    go.write_text("go")
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")
        assert stack.leftovers() == []


def supervised(stack: Stack, verb: str, name: str) -> None:
    asyncio.run(getattr(Supervisor(stack.layout.machine(MACHINE)), verb)(name))


@contextmanager
def stopped(stack: Stack) -> Iterator[None]:
    supervised(stack, "stop", "simulation")
    yield


@contextmanager
def killed_machine(stack: Stack) -> Iterator[None]:
    os.kill(stack.program("supervisord").pid, signal.SIGKILL)
    yield


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """It hangs; who restarts it must use force."""
    os.kill(stack.program(name).pid, signal.SIGSTOP)
    yield


@contextmanager
def crashing(stack: Stack) -> Iterator[None]:
    go = stack.layout.machine(MACHINE) / "go"
    go.unlink()
    os.kill(stack.program("steered").pid, signal.SIGKILL)
    yield
    go.write_text("go")


@contextmanager
def killed_often(stack: Stack) -> Iterator[None]:
    last = 0
    for _ in range(5):
        pid = until(
            "it runs again", lambda before=last: found if (found := stack.program("steered").pid) != before else 0
        )
        supervised_running(stack, "steered", pid)
        os.kill(pid, signal.SIGKILL)
        last = pid
    yield


def supervised_running(stack: Stack, name: str, pid: int) -> None:
    def running() -> bool:
        info = asyncio.run(Supervisor(stack.layout.machine(MACHINE)).process(name))
        return (info.statename, info.pid) == ("RUNNING", pid)

    until(f"{name} is RUNNING", running)


@contextmanager
def port_taken(stack: Stack) -> Iterator[None]:
    supervised(stack, "stop", "comfyui-gpu1")
    with socket.create_server(("127.0.0.1", stack.ports["comfyui"] + 1)):
        supervised(stack, "start", "comfyui-gpu1")
        yield


@contextmanager
def part_stopped(stack: Stack) -> Iterator[None]:
    asyncio.run(Supervisor(stack.layout.control).stop("eventlog"))
    yield


@contextmanager
def ghost(stack: Stack) -> Iterator[None]:
    """A worker that ended without taking its report away."""
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as r:
        report = json.loads(r.hget("workers", f"{MACHINE}-worker-0") or "")
        r.hset("workers", GHOST, json.dumps({**report, "worker_id": GHOST, "gpu": 9}))
        r.zadd("workers:seen", {GHOST: 1})
    yield


@contextmanager
def damaged(stack: Stack) -> Iterator[None]:
    with redis.Redis.from_url(stack.redis_url) as r:
        r.hset("workers", f"{MACHINE}-worker-1", "{")
    yield


@contextmanager
def other_configuration(stack: Stack) -> Iterator[None]:
    stack.file.write_text(stack.file.read_text().replace("start: 1s}", "start: 1s, env: {COLOUR: green}}", 1))
    assert stack.run("apply", "-y", "--timeout", "1").returncode == 4
    yield


CASES = (
    Case(kind=Kind.PROGRAM_STOPPED, subject="simulation", line="  simulation:", cause=stopped),
    Case(kind=Kind.MACHINE_MISSING, subject=MACHINE, line=f"  {MACHINE}:", cause=killed_machine),
    Case(
        kind=Kind.WORKER_STALE,
        subject=f"{MACHINE}-worker-0",
        line=f"  {MACHINE}:",
        cause=lambda stack: frozen(stack, "redis-worker-gpu0"),
    ),
    Case(
        kind=Kind.PROGRAM_UNHEALTHY,
        subject="comfyui-gpu0",
        line="  comfyui:",
        cause=lambda stack: frozen(stack, "comfyui-gpu0"),
    ),
    Case(kind=Kind.PROGRAM_FATAL, subject="steered", line="  steered:", cause=crashing),
    Case(kind=Kind.PROGRAM_FLAPPING, subject="steered", line="  steered:", cause=killed_often),
    Case(kind=Kind.PROGRAM_PORT_TAKEN, subject="comfyui-gpu1", line="  comfyui:", cause=port_taken, decided=False),
    Case(kind=Kind.CONTROL_DOWN, subject="eventlog", line=None, cause=part_stopped),
    Case(kind=Kind.WORKER_SURPLUS, subject=GHOST, line=None, cause=ghost, journal=False),
    Case(kind=Kind.REPORT_MALFORMED, subject=f"{MACHINE}-worker-1", line=None, cause=damaged, journal=False),
    Case(kind=Kind.CONFIG_BEHIND, subject=MACHINE, line=f"  {MACHINE}:", cause=other_configuration),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.kind)
def test_a_drift_is_caused_told_and_healed(fleet: Stack, case: Case) -> None:
    fleet.until_in_sync()
    fleet.ok("pause", "--reason", f"{case.kind} is caused")
    with case.cause(fleet):
        told = until(f"{case.kind} of {case.subject}", lambda: seen(fleet, case))
        if case.line is None:
            assert told["origin"] == ""
        else:
            file, line, _ = told["origin"].split(":")
            assert file == "emp.yaml" and lines(fleet)[int(line) - 1].startswith(case.line), told["origin"]
        if case.journal:
            until("the reconciler has seen it", lambda: told["key"] in {e["data"].get("key") for e in journal(fleet)})
    fleet.ok("resume")
    fleet.until_in_sync(within_s=90)
    if case.journal:
        until("it is told that it closed", lambda: story(fleet, told["key"])[-1:] == ["drift_closed"])
        kinds = story(fleet, told["key"])
        assert kinds[0] == "drift_opened" and ("decision" in kinds) is case.decided, kinds


def lines(stack: Stack) -> list[str]:
    return stack.file.read_text().splitlines()


def seen(stack: Stack, case: Case) -> dict[str, Any] | None:
    _, document = stack.diff()
    drifts = [item["drift"] for item in document["drift"]]
    found = next((d for d in drifts if (d["kind"], d["subject"]) == (case.kind, case.subject)), None)
    return found and {**found, "key": f"{found['kind']}/{found['machine_id']}/{found['subject']}"}


def journal(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.ok("journal", "-n", "500", "--json"))
    return found


def story(stack: Stack, key: str) -> list[str]:
    return [e["type"] for e in journal(stack) if e["data"].get("key") == key]


def test_what_passes_on_the_way_is_in_the_journal(fleet: Stack) -> None:
    told = {e["data"].get("kind") for e in journal(fleet)}
    assert told >= ON_THE_WAY, ON_THE_WAY - told


def test_every_kind_is_caused_somewhere() -> None:
    here = {c.kind for c in CASES} | ON_THE_WAY
    assert here | ELSEWHERE.keys() == set(Kind) and not here & ELSEWHERE.keys()
