"""Checks of the Docker hosts: each answers, and has the images that its machines are made from; Compose is here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem
from emp_orch.fleet.model.hosts import image_build

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts


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
