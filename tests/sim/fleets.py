"""Generations of one small fleet: four machines of a service with a health check for each GPU, three as containers.

The first may have two GPUs, and then a helper that no worker needs; it is a machine of processes.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from emp_orch.fleet.model.fleet import Fleet, ReconcileSpec, RolloutSpec, Scale, ServiceName, WorkerSpec
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.store.fleet.generations import Generation
from support.fleet.fleets import HEALTH, fleet, machine, service
from support.fleet.world import BROKEN, BROKEN_PACKAGE

WEB = service("web", scale=Scale.PER_GPU, health=HEALTH, command=("serve",))
HELPER = service("helper", command=("help",))
MACHINES = ("m0", "m1", "m2", "m3")
START_MS = 1_000_000_000
DRAIN_S = 10.0
PACKAGE, OTHER_PACKAGE = "1" * 64, "2" * 64
_WORKERS = WorkerSpec(capabilities={}, drain_timeout_s=DRAIN_S, job_timeout_s=600.0)


def any_fleet(
    *,
    names: tuple[str, ...] = MACHINES,
    gpus: int = 1,
    command: str = "serve",
    image: str = "image:1",
    package: str = PACKAGE,
    **reconcile: Any,
) -> Fleet:
    """`reconcile` are fields of ReconcileSpec; `rollback` is one of its rollout's."""
    web = structs.replace(WEB, command=(command,))
    machines = [
        machine(
            name,
            services=[WEB.name, HELPER.name] if name == "m0" and gpus > 1 else [WEB.name],
            num_gpus=gpus if name == "m0" else 1,
            worker=_WORKERS,
            runtime=RuntimeKind.PROCESS if name in ("m0", "x0") else RuntimeKind.COMPOSE,
            image=None if name in ("m0", "x0") else image,
        )
        for name in names
    ]
    bare = fleet([web, HELPER], *machines)
    rollout = RolloutSpec(min_healthy_s=4.0, progress_deadline_s=120.0, rollback=reconcile.pop("rollback", False))
    spec: ReconcileSpec = structs.replace(bare.reconcile, rollout=rollout, **reconcile)
    return structs.replace(bare, reconcile=spec, worker_package=WorkerPackage(digest=package))


def is_broken(of: Fleet) -> bool:
    commands = of.services[ServiceName("web")].command == (BROKEN,)
    return commands or package_of(of) == BROKEN_PACKAGE or any(m.image == BROKEN for m in of.machines)


def package_of(of: Fleet) -> str:
    return of.worker_package.digest if of.worker_package else ""


def generation(number: int, of: Fleet, *, prune: bool = False) -> Generation:
    return Generation(number=number, at_ms=START_MS, fleet=of, digest="", prune=prune, package=of.worker_package)
