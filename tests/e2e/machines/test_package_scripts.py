"""Workers and agents of another emp than the control plane's go on, though machines may send Redis no scripts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from msgspec import structs
from redis import exceptions as rexc

from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.machine_scripts import CHANGE_MS
from emp_orch.store.fleet.generations import read_generation, restore
from emp_orch.store.redis.client import connected
from emp_orch.store.redis.keys import Keys
from support.stack.release import Release
from support.stack.stack import MACHINE, Stack, until
from support.tree import ROOT

LONG = '{"prompt": "a fox", "steps": 300}'


def says(release: Release, words: str) -> None:
    """The next release: all that its workers and agents send to Redis are other texts."""
    loader = Path("emp_orch", "store", "redis", "lua.py")
    text = (ROOT / loader).read_text()
    old = 'return "\\n".join(["", '
    assert text.count(old) == 1
    (release.root / loader).write_text(text.replace(old, f'{old}"-- {words}", '))


def leaves_no_scripts(release: Release, *, leaves: bool) -> None:
    """An emp from before packages brought their scripts."""
    path = release.root / "emp_orch" / "control" / "plane" / "packing.py"
    lines = (ROOT / "emp_orch" / "control" / "plane" / "packing.py").read_text().splitlines(keepends=True)
    (at,) = [n for n, line in enumerate(lines) if "package_scripts.keep(" in line]
    path.write_text("".join(lines if leaves else [*lines[:at], *lines[at + 1 :]]))


@contextmanager
def machine_at_redis(stack: Stack) -> Iterator[redis.Redis]:
    url = (stack.layout.machine(MACHINE) / "hub_redis_url").read_text().strip()
    with redis.Redis.from_url(url, decode_responses=True) as r:
        yield r


def sends(stack: Stack) -> bool:
    """Whether the machine may send scripts of its own."""
    with machine_at_redis(stack) as r:
        try:
            return bool(r.eval("return 1", 0))
        except rexc.NoPermissionError:
            return False


def forget_scripts(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis_url) as r:
        r.script_flush()


def begun(release: Release) -> str:
    job_id = str(json.loads(release.stack.ok("submit", "simulation", "--payload", LONG, "--json"))["id"])
    until("it runs", lambda: release.job(job_id)["status"] == "in_progress")
    return job_id


def ends_well(release: Release, job_id: str) -> None:
    until("it ends", lambda: release.job(job_id)["status"] == "completed", shown=release.stack.log_ends)
    assert release.job(job_id)["attempts"] == 1


@pytest.fixture
def release(tmp_path: Path, folder_stack: Stack) -> Release:
    return Release(tmp_path / "source", folder_stack)


def test_an_upgrade_and_the_way_back_lose_no_job_and_machines_send_no_script(release: Release) -> None:
    stack = release.stack
    says(release, "release one")
    release.in_force()
    assert not sends(stack)
    (first,) = release.packages
    job = begun(release)
    says(release, "release two")
    forget_scripts(stack)
    release.in_force()
    forget_scripts(stack)
    assert not sends(stack), "for both the scripts are known"
    ends_well(release, job)
    until("the first is deleted", lambda: first not in release.packages)
    # Back to its workers, under a control plane of release two.
    job = begun(release)
    pinned = f"worker_package: {{url: '{stack.api}/packages/{first}', sha256: {first}}}\n"
    text = stack.file.read_text()
    stack.file.write_text(f"{text}\n{pinned}")
    release.in_force()
    ends_well(release, job)
    until("they run from it", lambda: release.running == {first})
    forget_scripts(stack)
    ends_well(release, begun(release))
    assert not sends(stack)
    assert "the scripts of the worker package are known" in release.emp("doctor").stdout


def test_of_an_emp_from_before_this_they_may_send_theirs_until_they_are_replaced(release: Release) -> None:
    stack = release.stack
    says(release, "before")
    leaves_no_scripts(release, leaves=False)
    release.in_force()
    assert sends(stack)
    job = begun(release)
    says(release, "after")
    leaves_no_scripts(release, leaves=True)
    release.in_force()
    forget_scripts(stack)  # whatever still runs the former sends its own
    assert sends(stack)
    ends_well(release, job)
    # An hour later. Its clock is not ours to set: the generations are made older.
    assert "the scripts of the worker package are known" in release.emp("doctor").stdout
    _age(stack, CHANGE_MS)
    until("it may no longer", lambda: not sends(stack))
    forget_scripts(stack)
    ends_well(release, begun(release))
    stack.until_in_sync()


def _age(stack: Stack, by_ms: int) -> None:
    """As if the generation in force were that much older: its leader, begun anew, reads it so."""

    async def rewrite() -> None:
        keys, seal = Keys(""), SigningKey(stack.layout, "test").control()
        async with connected(stack.redis_url) as r:
            found = await read_generation(r, keys, "test", seal)
            assert found is not None
            await restore(r, keys, structs.replace(found, at_ms=found.at_ms - by_ms), seal)

    before = stack.control("reconcile")
    asyncio.run(rewrite())
    os.kill(before.pid, signal.SIGKILL)
    until("it is begun anew", lambda: stack.control("reconcile") != before)
