"""Checks of the Docker hosts: each answers, and has the images that its machines are made from; Compose is here."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from emp_orch.control.doctor.model import Check, Group, Level, Problem, Unknown
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Fleet, RuntimeKind
from emp_orch.fleet.model.hosts import host_of, image_build
from emp_orch.images import MACHINE_IMAGE
from emp_orch.settings import EngineAddress

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts

COMPOSE_S = 5.0


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
        if machine.runtime is RuntimeKind.COMPOSE:
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
            [*command, "compose", "version"], capture_output=True, text=True, timeout=COMPOSE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"docker compose: {e}"
    return "" if asked.returncode == 0 else "docker has no `compose` command here"


def _answers(facts: Facts) -> Iterator[Problem]:
    for name, engine in facts.engines.items():
        if isinstance(engine, Unknown):
            yield Problem(
                what=f"Docker host {name}: {engine.reason}",
                fix="its machines are unknown until it answers; the others go on",
                where=f"hosts.{name}",
            )
        elif engine.compose:
            yield Problem(
                what=engine.compose, fix="install the Compose plugin, version 2.17 or newer", where=f"hosts.{name}"
            )


def _images(facts: Facts) -> Iterator[Problem]:
    for name, engine in facts.engines.items():
        if isinstance(engine, Unknown):
            continue
        for image in engine.missing:
            yield Problem(
                what=f"Docker host {name} has no image {image}",
                fix=image_build(name, engine.url, image),
                where=f"hosts.{name}",
                level=Level.WARN,
            )


def _told(facts: Facts) -> str:
    return f"Docker answers: {', '.join(facts.engines)}" if facts.engines else "no machine needs Docker"


CHECKS = (
    Check(name="docker", group=Group.DOCKER, fine=_told, find=_answers),
    Check(name="docker-images", group=Group.DOCKER, fine=lambda _: "no image is missing there", find=_images),
)
