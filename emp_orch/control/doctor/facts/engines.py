"""What the Docker hosts say: whether each answers, which images it lacks, and whether Compose is here."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence

from msgspec import Struct

from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.fleet.model.hosts import host_of
from emp_orch.images import MACHINE_IMAGE
from emp_orch.settings import EngineAddress

COMPOSE_VERSION_S = 5.0


class EngineFacts(Struct, frozen=True, kw_only=True):
    """`missing`: images that `emp images build` makes, and that this engine lacks. `compose`: why the engine cannot be
    commanded by `docker compose`; empty when it can."""

    url: str
    missing: tuple[str, ...]
    compose: str


async def engine_facts(hosts: Sequence[EngineAddress], fleet: Fleet | None) -> dict[str, EngineFacts | Unknown]:
    """Every Docker host at once; one that is away makes nobody else wait."""
    images: dict[str, set[str]] = {h.name: set() for h in hosts}
    for machine in fleet.machines if fleet else ():
        if machine.traits.in_container:
            images.setdefault(host_of(machine), set()).add(machine.image or MACHINE_IMAGE)
    looks = [asyncio.to_thread(_look, host, images[host.name]) for host in hosts]
    return dict(zip((h.name for h in hosts), await asyncio.gather(*looks), strict=True))


def _look(host: EngineAddress, images: set[str]) -> EngineFacts | Unknown:
    from emp_orch.runtimes.compose.command_line import command  # the Docker SDK takes its time to import
    from emp_orch.runtimes.compose.engine import Engine
    from emp_orch.runtimes.compose.images import lacking

    engine = Engine(host)
    try:
        missing = lacking(engine, images)
        engine.containers(("emp.fleet",))
        return EngineFacts(url=host.url, missing=missing, compose=_compose(command(host)))
    except EmpError as e:
        return Unknown(reason=f"{e.message}{f'; {e.hint}' if e.hint else ''}")
    finally:
        engine.close()


def _compose(command: list[str]) -> str:
    try:
        asked = subprocess.run(
            [*command, "compose", "version"], capture_output=True, text=True, timeout=COMPOSE_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"docker compose: {e}"
    return "" if asked.returncode == 0 else "docker has no `compose` command here"
