"""kill -9 of each kind of process, one after another, on one real stack: each heals without help.

After each: `emp diff` is 0, counts are exact, and of every program there is one process, the recorded one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest
import redis

from emp_orch.procident import ProcessIdentity, alive
from emp_orch.runtimes.process.supervisor import Supervisor
from support.http.stack import eventually
from support.stack.stack import MACHINE, Stack, until

CONTROL = ("supervisord", "redis", "api", "monitor", "reconcile", "eventlog")
PROGRAMS = (
    "supervisord",
    "agent",
    "simulation",
    "comfyui-gpu0",
    "comfyui-gpu1",
    "redis-worker-gpu0",
    "redis-worker-gpu1",
)


def _identities(stack: Stack) -> dict[str, ProcessIdentity]:
    return {
        **{f"control/{n}": stack.control(n) for n in CONTROL},
        **{n: stack.program(n) for n in PROGRAMS},
    }


def _kill(who: ProcessIdentity, sig: signal.Signals = signal.SIGKILL) -> None:
    assert alive(who)
    os.kill(who.pid, sig)


async def _ready(stack: Stack) -> dict[str, Any]:
    """The state once its machines say that they are ready: a new agent goes through the start-up sequence first."""
    async with asyncio.timeout(60):
        while True:
            data = await stack.state()
            if all(m["status"] == "ready" for m in data["machines"]):
                return data
            await asyncio.sleep(0.1)


async def _assert_whole(stack: Stack, before: dict[str, ProcessIdentity], replaced: set[str]) -> None:
    """In sync; exactly `replaced` are new processes; nothing beside the recorded ones lives."""
    now = _identities(stack)
    assert {name for name in now if now[name] != before[name]} == replaced
    pids = {who.pid for who in now.values()}
    strangers = [line for line in stack.leftovers() if int(line.split()[0]) not in pids]
    assert not strangers, "processes that nobody recorded:\n" + "\n".join(strangers)
    assert [m["machine_id"] for m in (await _ready(stack))["machines"]] == [MACHINE]

    async def all_idle() -> bool:
        workers = (await _ready(stack))["workers"]
        found = sorted((w["worker_id"], w["machine_id"], w["status"]) for w in workers)
        return found == [(f"{MACHINE}-worker-{slot}", MACHINE, "idle") for slot in (0, 1)]

    # A Redis that was killed may have lost the last word of one; it comes again with the next heartbeat.
    await eventually(all_idle, "two idle workers")
    assert stack.redis_reports() == ([MACHINE], [f"{MACHINE}-worker-0", f"{MACHINE}-worker-1"])


@pytest.mark.parametrize("name", ["redis-worker-gpu0", "comfyui-gpu1", "simulation", "agent"])
async def test_a_killed_program_is_replaced(stack: Stack, name: str) -> None:
    before = _identities(stack)
    _kill(before[name])
    until(f"a new {name}", lambda: stack.program(name) != before[name])
    stack.until_in_sync()
    await _assert_whole(stack, before, {name})


async def test_a_killed_machine_is_started_again_without_duplicates(stack: Stack) -> None:
    before = _identities(stack)
    _kill(before["supervisord"])
    until("a new supervisord", lambda: stack.program("supervisord") != before["supervisord"])
    stack.until_in_sync()
    await _assert_whole(stack, before, set(PROGRAMS))


async def test_a_hanging_agent_costs_a_restart_of_its_machine(stack: Stack) -> None:
    before = _identities(stack)
    _kill(before["agent"], signal.SIGSTOP)
    until("a new agent", lambda: stack.program("agent") != before["agent"], within_s=90)
    stack.until_in_sync()
    await _assert_whole(stack, before, set(PROGRAMS))


@pytest.mark.parametrize("name", ["reconcile", "api", "monitor", "eventlog"])
async def test_a_killed_daemon_is_replaced(stack: Stack, name: str) -> None:
    before = _identities(stack)
    _kill(before[f"control/{name}"])
    until(f"a new {name}", lambda: stack.control(name) != before[f"control/{name}"])
    until("the API answers", lambda: stack.run("status").returncode == 0)
    stack.until_in_sync()
    await _assert_whole(stack, before, {f"control/{name}"})


async def test_a_killed_redis_comes_back_with_its_data(stack: Stack) -> None:
    done = json.loads(stack.ok("submit", "simulation", "--wait", "--json"))
    before = _identities(stack)
    # The append-only file is synced once a second; what is older than that must survive.
    until("the job is on disk", lambda: done["id"].encode() in _aof(stack))
    _kill(before["control/redis"])
    until("a new redis", lambda: stack.control("redis") != before["control/redis"])
    stack.until_in_sync()
    until("status is whole", lambda: stack.run("status").returncode == 0)
    await _assert_whole(stack, before, {"control/redis"})
    job = json.loads(stack.ok("jobs", "show", done["id"], "--json"))
    assert job["status"] == "completed"
    assert json.loads(stack.ok("submit", "simulation", "--wait", "--json"))["status"] == "completed"


def _aof(stack: Stack) -> bytes:
    return b"".join(p.read_bytes() for p in stack.layout.redis.rglob("*.aof"))


async def test_an_emptied_redis_is_filled_again(stack: Stack) -> None:
    before = _identities(stack)
    for _ in range(3):
        stack.ok("submit", "nobody-has-it")
    until("they are counted", lambda: b'"unfinished":3' in stack.layout.counted.read_bytes())
    with redis.Redis.from_url(stack.redis_url) as r:
        r.flushall()
    gone = "3 jobs are gone: Redis came back empty"
    until("it is told", lambda: gone in stack.run("status").stdout)
    told = [line for line in stack.ok("journal").splitlines() if gone in line]
    assert len(told) == 1 and "jobs lost" in told[0] and "appendonly yes" in told[0]
    until("reports return", lambda: len(stack.redis_reports()[1]) == 2)
    stack.until_in_sync()
    until("status is whole", lambda: stack.run("status").returncode == 0)
    await _assert_whole(stack, before, set())


async def test_a_stopped_part_of_the_control_plane_is_started_by_apply(stack: Stack) -> None:
    before = _identities(stack)
    supervisor = Supervisor(stack.layout.control)
    await supervisor.stop("reconcile")
    await supervisor.stop("api")
    assert stack.run("status").returncode == 2
    stack.up()
    await _assert_whole(stack, before, {"control/reconcile", "control/api"})


async def test_a_killed_control_plane_leaves_machines_running(stack: Stack) -> None:
    before = _identities(stack)
    _kill(before["control/supervisord"])
    done = stack.run("apply", "-y")
    assert done.returncode == 0, done.stderr
    assert "basic-machine-local" not in done.stderr.split("control plane", 1)[0]
    stack.until_in_sync()
    await _assert_whole(stack, before, {f"control/{n}" for n in CONTROL})
