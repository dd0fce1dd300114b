"""How the id of a worker, and the name of its program, are made and read back."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import MachineId, ProgramName, WorkerId


def worker_id(machine_id: MachineId, slot: int) -> WorkerId:
    return WorkerId(f"{machine_id}-worker-{slot}")


def machine_of(worker: str) -> MachineId:
    """The machine that a worker's id names; empty when it is not the id of a worker."""
    return MachineId(worker.rpartition("-worker-")[0])


def worker_program(slot: int) -> ProgramName:
    return ProgramName(f"redis-worker-gpu{slot}")
