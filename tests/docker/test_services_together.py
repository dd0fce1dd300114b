"""An engine that lets nobody use Landlock: services start as before, and the machine says that they are not apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.store.redis.client import client
from support.docker.engine import Engine
from support.docker.machine import PASSWORD, Container, gateway_redis
from support.fleet.fleets import service
from support.machine.machine import desired, running
from support.redis.server import until

CALLS = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
READS = "cat /run/secrets/hub_redis_url; sleep 100000"


@pytest.fixture(params=[False, True], ids=["apart", "together"])
async def box(
    engine: Engine, machine_image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Container, bool]]:
    profile = tmp_path / "profile.json"
    refused = {"names": CALLS, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    options = ("--security-opt", f"seccomp={profile}") if request.param else ()
    with gateway_redis(engine, tmp_path / "redis") as server:
        r = client(server.url)
        made = Container(engine, tmp_path, r, server, options=options)
        yield made, request.param
        await made.stop()
        await r.aclose()


async def test_it_runs_and_says_whether_services_are_apart(box: tuple[Container, bool]) -> None:
    container, together = box
    await container.start(desired(service("a", command=("sh", "-c", READS))))
    found = await container.until(
        lambda m: m.status is MachineStatus.READY and running(m.programs[ProgramName("a")]), within_s=90.0
    )
    assert ("has no Landlock, or a seccomp profile hides it" in found.together) is together
    assert (found.together == "") is not together

    async def told() -> bool:
        said = container.exec("cat", "/var/lib/emp-own/logs/machine-m/a.log")
        return (PASSWORD in said) if together else ("Permission denied" in said)

    await until(told)
