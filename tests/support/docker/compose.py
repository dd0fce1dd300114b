"""Containers for tests of the pure rooms, and compose.yaml as Compose reads it once its `$` are replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from emp_orch import resources
from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import Service
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.render.compose import Placed, render_compose
from emp_orch.render.compose_control import PlacedControl, render_control_compose
from support.fleet.fleets import fleet, machine

TEMPLATE = resources.read_text("templates/compose.yaml.j2")
CONTROL_TEMPLATE = resources.read_text("templates/compose-control.yaml.j2")


def container(machine_id: str = "m", *, services: Iterable[Service] = (), **changes: Any) -> DesiredMachine:
    """The desired compose machine that runs all `services`; `changes` are fields of Machine."""
    services = list(services)
    m = machine(machine_id, services=[s.name for s in services], runtime=RuntimeKind.COMPOSE, **changes)
    return desired_machine(fleet(services, m), m)


def placed(m: DesiredMachine, **changes: Any) -> Placed:
    fields: dict[str, Any] = {
        "machine": m,
        "generation": 3,
        "digest": config_hash(m),
        "folder": "0123456789ab",
        "user": "1000:1000",
        "redis_url": "redis://host.docker.internal:6380/0",
        "prefix": "",
        "artifacts_url": "file:///srv/fleet/.emp/artifacts",
        "secrets": "/srv/fleet/.emp/hosts/local/secrets",
        "artifacts": "/srv/fleet/.emp/artifacts",
    }
    return Placed(**{**fields, **changes})


def text(*machines: Placed, fleet: str = "f", project: str = "emp-f") -> str:
    return render_compose(TEMPLATE, machines, fleet=fleet, project=project)


def placed_control(**changes: Any) -> PlacedControl:
    fields: dict[str, Any] = {
        "fleet": "f",
        "folder": "0123456789ab",
        "root": "/srv/fleet",
        "user": "1000:1000",
        "socket": "/var/run/docker.sock",
        "socket_group": 998,
        "image": "emp-control:1",
        "redis_image": "redis:7-alpine",
        "redis": ("/srv/fleet/.emp/redis/redis.conf",),
        "redis_folder": "/srv/fleet/.emp/redis",
        "logs": "/srv/fleet/logs",
        "addresses": {"redis": ("127.0.0.1", 6380), "api": ("127.0.0.1", 3331), "monitor": ("::1", 3333)},
        "mounts": (),
    }
    return PlacedControl(**{**fields, **changes})


def control_text(placed: PlacedControl, *, project: str = "emp-f-control") -> str:
    return render_control_compose(CONTROL_TEMPLATE, placed, project=project)


def read(text: str) -> dict[str, Any]:
    """What Compose makes of a file, if no `$` in it names a variable."""
    document: dict[str, Any] = _replaced(yaml.safe_load(text))
    return document


def _replaced(value: Any) -> Any:
    match value:
        case dict():
            return {k: _replaced(v) for k, v in value.items()}
        case list():
            return [_replaced(v) for v in value]
        case str():
            assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", value), f"a variable of Compose's in {value!r}"
            return value.replace("$$", "$")
        case _:
            return value


def services_of(machines: Sequence[Placed], **names: str) -> dict[str, Any]:
    services: dict[str, Any] = read(text(*machines, **names))["services"]
    return services
