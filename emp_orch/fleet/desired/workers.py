"""The workers of a fleet, and what its emp.yaml tells of what they can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from emp_orch.fleet.desired.addresses import program_port, service_url
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import (
    Fleet,
    Machine,
    MachineId,
    Pool,
    ProgramName,
    Scale,
    Service,
    ServiceName,
    WorkerId,
)
from emp_orch.fleet.model.ids import machine_of, worker_id, worker_program


class KnownWorker(Struct, frozen=True, kw_only=True):
    """`capabilities`: all but what only the worker can find out, its hardware."""

    worker_id: WorkerId
    machine_id: MachineId
    program: ProgramName
    capabilities: dict[str, Any]


def _takes_jobs(machine: Machine, service: Service) -> bool:
    slot = 0 if service.scale is Scale.PER_GPU else None
    return service.connector is not None and program_port(machine, service, slot) is not None


def known_workers(fleet: Fleet) -> Iterator[KnownWorker]:
    """Every worker the fleet should have, in the order of the file."""
    for machine in fleet.machines:
        yield from _workers_of(fleet, machine)


def possible_workers(fleet: Fleet) -> Iterator[KnownWorker]:
    """Those, and the workers that one more member of each pool would have: a job that only they could run waits, and
    is not hopeless.
    """
    yield from known_workers(fleet)
    for pool in fleet.pools.values():
        if pool.max_size:
            yield from workers_of_pool(fleet, pool)


def workers_of_pool(fleet: Fleet, pool: Pool) -> Iterator[KnownWorker]:
    """The workers that any member of `pool` will have, as far as emp.yaml tells."""
    return _workers_of(fleet, machine_of_member(pool, any_member(pool)))


def any_member(pool: Pool) -> MachineId:
    """Stands for a member of `pool` that is not there."""
    return MachineId(f"{pool.name}-any")


def _workers_of(fleet: Fleet, machine: Machine) -> Iterator[KnownWorker]:
    services = [name for name in machine.services if _takes_jobs(machine, fleet.services[name])]
    for slot in range(machine.num_gpus):
        yield KnownWorker(
            worker_id=worker_id(machine.id, slot),
            machine_id=machine.id,
            program=worker_program(slot),
            capabilities={"gpu": slot, **machine.worker.capabilities, "services": services},
        )


def binding_of(fleet: Fleet, worker: str, service: str) -> tuple[str, str] | None:
    """The connector and the URL by which a worker that the fleet should have works for a service; None where it does
    not.
    """
    machine = machine_of_worker(fleet, worker)
    if machine is None or ServiceName(service) not in machine.services:
        return None
    found = fleet.services[ServiceName(service)]
    slot = next(slot for slot in range(machine.num_gpus) if worker == worker_id(machine.id, slot))
    url = service_url(machine, found, slot)
    return None if found.connector is None or url is None else (found.connector, url)


def machine_of_worker(fleet: Fleet, worker: str) -> Machine | None:
    """The machine of a worker that the fleet should have; None when it should not."""
    machine = next((m for m in fleet.machines if m.id == machine_of(worker)), None)
    if machine is not None and any(worker == worker_id(machine.id, slot) for slot in range(machine.num_gpus)):
        return machine
    return None
