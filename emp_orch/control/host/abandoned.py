"""What a fleet left on this host's engine whose folder is gone: containers, networks and volumes, by their labels."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from emp_orch.errors import UsageError
from emp_orch.runtimes.compose.connection import local_host
from emp_orch.runtimes.compose.containers import Container
from emp_orch.runtimes.compose.engine import Engine

# How long each of its containers may take to end in order; nobody knows its drain any more.
CONTAINER_STOP_S = 90.0


class Abandoned(Struct, frozen=True, kw_only=True):
    """`folder` is the digest of `root`, the folder that is gone."""

    fleet: str
    folder: str
    root: str

    @property
    def labels(self) -> tuple[str, str]:
        return f"emp.fleet={self.fleet}", f"emp.folder={self.folder}"

    @property
    def words(self) -> str:
        return f"{self.fleet} of {self.root}, which is gone"


def abandoned(name: str) -> tuple[Engine, Abandoned] | None:
    """The fleet of that name, digest or former folder; None when the engine has nothing of one.

    Raises Unreachable when there is no engine, UsageError when several are called so.
    """
    engine = Engine(local_host())
    owners = [c.labels for c in engine.containers(("emp.fleet",))] + engine.volume_labels(("emp.fleet",))
    found = {
        Abandoned(fleet=o.get("emp.fleet", ""), folder=o.get("emp.folder", ""), root=root)
        for o in owners
        if (root := o.get("emp.root", "")) and not Path(root).exists()
    }
    meant = sorted((a for a in found if name in (a.fleet, a.folder, a.root)), key=lambda a: a.root)
    if len(meant) > 1:
        lines = "\n".join(f"  {a.words} ({a.folder})" for a in meant)
        raise UsageError(f"several fleets were called {name!r}:\n{lines}", hint="name one by its folder")
    return (engine, meant[0]) if meant else None


def end(engine: Engine, fleet: Abandoned, *, volumes: bool) -> tuple[list[str], list[str]]:
    """Stop and remove its containers and networks, and its `volumes`: the machines that ran, the volumes removed."""
    containers = engine.containers(fleet.labels)
    patient = Engine(engine.host, answer_s=CONTAINER_STOP_S * 2)
    for container in containers:
        patient.stop(container.id, timeout_s=CONTAINER_STOP_S)
        engine.remove_container(container.id)
    for project in sorted({_project(c) for c in containers} - {""}):
        engine.remove_networks((f"com.docker.compose.project={project}",))
    ran = sorted({c.labels.get("emp.machine", "") for c in containers if c.state == "running"} - {""})
    return ran, engine.remove_volumes(fleet.labels) if volumes else []


def _project(container: Container) -> str:
    return container.labels.get("com.docker.compose.project", "")
