"""The compose.yaml of each Docker host of a fleet, as `emp apply` would write it but for what only that knows."""

from __future__ import annotations

from pathlib import Path

from emp_orch.fleet.desired.machines import config_hash, desired_machines
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import EMBEDDED, Fleet
from emp_orch.fleet.model.hosts import HOST_GATEWAY, is_here, is_loopback
from emp_orch.layout import Layout
from emp_orch.render.compose import Placed, render_compose
from emp_orch.resources import read_text
from emp_orch.runtimes.compose.folder import container_user, folder_digest
from emp_orch.urls import with_hosts, without_login

_NO_GENERATION = 0


def compose_texts(fleet: Fleet, root: Path) -> dict[str, str]:
    """The text for each Docker host that runs machines of `fleet`, which lies in the folder `root`."""
    layout = Layout(root)
    folder = folder_digest(layout)
    by_host: dict[str, list[Placed]] = {}
    for machine in desired_machines(fleet).values():
        if machine.container is not None:
            placed = _placed(fleet, machine, layout, folder, machine.container.host)
            by_host.setdefault(machine.container.host, []).append(placed)
    template, project = read_text("templates/compose.yaml.j2"), f"emp-{fleet.name}-{folder}"
    return {
        host: render_compose(template, placed, fleet=fleet.name, project=project) for host, placed in by_host.items()
    }


def _placed(fleet: Fleet, machine: DesiredMachine, layout: Layout, folder: str, host: str) -> Placed:
    here = is_here(fleet.hosts.get(host))
    shared = here and not fleet.jobs.artifacts
    return Placed(
        machine=machine,
        generation=_NO_GENERATION,
        digest=config_hash(machine),
        folder=folder,
        user=container_user(),
        redis_url=redis_url_inside(fleet),
        prefix=fleet.redis.prefix,
        artifacts_url=fleet.jobs.artifacts or layout.artifacts_url,
        secrets=str(layout.state / "hosts" / host / "secrets" / machine.id) if here else None,
        artifacts=str(layout.artifacts) if shared else None,
        logs=str(layout.logs / f"machine-{machine.id}") if here else None,
        api=here or bool(fleet.api.machine_url),
    )


def redis_url_inside(fleet: Fleet) -> str:
    """How a container of `fleet` reaches Redis, without user and password."""
    url = fleet.redis.machine_url or fleet.redis.url
    if url == EMBEDDED:
        return f"redis://{HOST_GATEWAY}:{fleet.redis.port}/0"
    return without_login(with_hosts(url, lambda host: HOST_GATEWAY if is_loopback(host) else host))
