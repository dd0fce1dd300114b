"""Health checks of every kind on a real machine: when they pass, what they say, and that nothing of them is left."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import Health, SecretRef, Service
from emp_orch.fleet.model.observed import ProgramReport
from emp_orch.machine.health.check_command import CHECK
from emp_orch.store.redis.client import Client
from support.fleet.fleets import HEALTH, service
from support.machine.machine import Box, desired
from support.redis.server import Server, until
from support.stack.stack import free_ports

LISTEN = (
    "import socket, sys, time; s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET);"
    "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((sys.argv[1], int(sys.argv[2])));"
    "s.listen(); time.sleep(100000)"
)


@pytest.fixture
async def box(tmp_path: Path, r: Client, server: Server) -> AsyncIterator[Box]:
    made = Box(tmp_path, r, server.url)
    yield made
    await made.stop()
    assert _checks() == []


def asking(**changes: Any) -> Health:
    asked = structs.replace(HEALTH, http="", interval_s=0.2, startup_s=0.5, failures=1, timeout_s=5.0)
    return structs.replace(asked, **changes)


def asked_by(name: str, *command: str, timeout_s: float = 5.0, **changes: Any) -> Service:
    """A service that only sleeps, with this command as its check."""
    health = structs.replace(asking(command=command), timeout_s=timeout_s)
    return service(name, command=("sleep", "100000"), health=health, **changes)


def listener(name: str, port: int, address: str, **changes: Any) -> Service:
    return service(
        name, command=(sys.executable, "-c", LISTEN, address, "${port}"), port=port, health=asking(**changes)
    )


def unhealthy(report: ProgramReport) -> bool:
    return report.healthy is False and report.pid != 0


def _checks() -> list[str]:
    """Processes that a check began."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes() if process.name.isdigit() else b""
        except OSError:
            continue
        if f"{CHECK}=".encode() in variables:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


async def test_a_command_is_well_when_it_ends_with_0_and_its_last_words_say_why_not(box: Box, tmp_path: Path) -> None:
    good = tmp_path / "good"
    values = '{"env:TOKEN":"s3cr3t-value"}'
    box.root.joinpath("secrets.json").write_text(values)
    work = tmp_path / "work"
    work.mkdir()
    script = f'echo "at $(pwd) with $OWN on $NUM_GPUS"; echo "token $TOKEN"; test -e {good} || exit 3'
    own = 'test "$OWN" = "its own" || exit 4; pwd; exit 5'
    env = {"OWN": "its own", "TOKEN": SecretRef(source="env", name="TOKEN")}
    services = [
        asked_by("asked", "sh", "-c", script, env=env, cwd=str(work)),
        asked_by("where", "sh", "-c", own, env={"OWN": "its own"}, cwd=str(work)),
        asked_by("silent", "false"),
        asked_by("killed", "sh", "-c", "kill -SEGV $$"),
        asked_by("absent", "no-such-check", "--password", "hush"),
    ]
    await box.start(desired(*services))
    said = {s.name: (await box.until_program(s.name, unhealthy)).detail for s in services}
    assert said == {
        "asked": "its check sh exited with status 3: token ***",
        "where": f"its check sh exited with status 5: {work}",
        "silent": "its check false exited with status 1",
        "killed": "its check sh was ended by SIGSEGV",
        "absent": "its check no-such-check cannot be run: No such file or directory",
    }
    good.touch()
    assert (await box.until_program("asked", lambda p: p.healthy is True)).detail == ""


async def test_a_check_that_takes_too_long_is_ended_with_all_that_it_began(box: Box) -> None:
    tree = "echo waiting; setsid sh -c 'setsid sleep 98765 & sleep 98765' & (sleep 98765 &) ; sleep 98765"
    leaves = "setsid sleep 98765 > /dev/null 2>&1 & exit 0"
    await box.start(
        desired(
            asked_by("slow", "sh", "-c", tree, timeout_s=0.5), asked_by("daemon", "sh", "-c", leaves, timeout_s=5.0)
        )
    )
    report = await box.until_program("slow", unhealthy)
    assert report.detail == "its check sh did not end within 0.5 s, and was killed: waiting"
    await box.until_program("daemon", lambda p: p.healthy is True)
    # Each round begins new ones; what one began is not there for much longer than it.

    async def some() -> bool:
        return any("98765" in c for c in _checks())

    async def few() -> bool:
        return len([c for c in _checks() if "98765" in c]) <= 8

    for _ in range(20):
        await until(some, within_s=10.0)
        await until(few, within_s=10.0)


async def test_ports_are_asked_on_both_loopback_addresses_and_http_where_workers_go(box: Box) -> None:
    port = free_ports(6)
    services = [
        listener("six", port, "::1", tcp="${port}"),
        listener("four", port + 1, "127.0.0.1", tcp=f"localhost:{port + 1}"),
        listener("web-six", port + 2, "::1", http="/"),
        listener("none", port + 3, "127.0.0.1", tcp=str(port + 5)),
        listener("far", port + 4, "127.0.0.1", tcp=f"[::1]:{port + 4}"),
    ]
    await box.start(desired(*services))
    for name in ("six", "four"):
        await box.until_program(name, lambda p: p.healthy is True)
    told = {
        "web-six": f"http://127.0.0.1:{port + 2}/: it listens on [::1]:{port + 2}, not on 127.0.0.1",
        "none": f"port {port + 5}: Connection refused",
        "far": f"[::1]:{port + 4}: Connection refused",
    }
    for name, why in told.items():
        await box.until_program(name, lambda p, why=why: unhealthy(p) and p.detail == why)  # type: ignore[misc]
