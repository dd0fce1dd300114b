"""What is desired, as values: a machine, its programs and its container. How they come about: machines.py."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from emp_orch.fleet.model.fleet import (
    EnvValue,
    Health,
    Limits,
    MachineId,
    Origin,
    ProgramName,
    ServiceName,
    Stop,
    Volume,
    WorkerId,
)
from emp_orch.fleet.model.ids import worker_id, worker_program
from emp_orch.fleet.model.runtimes import RuntimeKind, RuntimeTraits, traits_of
from emp_orch.images import kept_name


class DesiredContainer(Struct, frozen=True, kw_only=True):
    """`publish` are ports published on the loopback address of `host`, under their own numbers.

    `gpus` are the ids of the devices reserved for it; empty with gpus none. `image_id` is what `image` means on `host`
    in this generation, `image_digest` by what it can be pulled again: empty where nobody knows.
    """

    host: str
    image: str
    publish: tuple[int, ...]
    gpus: tuple[str, ...]
    volumes: tuple[Volume, ...]
    limits: Limits
    image_id: str = ""
    image_digest: str = ""

    @property
    def made_from(self) -> str:
        """The name by which its host has the very image."""
        return kept_name(self.image, self.image_id) if self.image_id else self.image


class ProgramKind(StrEnum):
    SETUP = "setup"
    INSTALLER = "installer"
    SERVICE = "service"
    WORKER = "worker"

    @property
    def once(self) -> bool:
        """Whether the program runs to its end (exit 0) instead of staying up."""
        return self in (ProgramKind.SETUP, ProgramKind.INSTALLER)


class DesiredProgram(Struct, frozen=True, kw_only=True):
    """One supervisord process. `argv[0]` may be EMP. `port` is the one it listens on, slot included.

    `after` names the programs that must be up before this one starts.
    """

    name: ProgramName
    kind: ProgramKind
    service: ServiceName | None
    slot: int | None
    port: int | None
    argv: tuple[str, ...]
    env: dict[str, EnvValue]
    cwd: str | None
    creates: str | None
    health: Health | None
    stop: Stop
    start_s: float
    after: tuple[ProgramName, ...]
    origin: Origin


class DesiredMachine(Struct, frozen=True, kw_only=True):
    """What one machine should run. `programs` are in start-up order. A `drained` one runs no workers for now.

    `capabilities` are those that emp.yaml gives its workers. `needs_gpus`: each slot wants a device of its own.
    `container` is None for a machine that is none. `job_timeout_s`: how long its workers let a job run. `warmups`: file
    within the machine's folder → its text.
    """

    id: MachineId
    runtime: RuntimeKind
    num_gpus: int
    services: tuple[ServiceName, ...]
    programs: tuple[DesiredProgram, ...]
    health_port: int
    labels: dict[str, str]
    drain_timeout_s: float
    capabilities: dict[str, Any]
    needs_gpus: bool
    origin: Origin
    drained: bool = False
    container: DesiredContainer | None = None
    job_timeout_s: float = 0.0
    warmups: dict[str, str] = {}

    @property
    def traits(self) -> RuntimeTraits:
        """What its runtime is like."""
        return traits_of(self.runtime)

    def program(self, name: ProgramName) -> DesiredProgram | None:
        return next((p for p in self.programs if p.name == name), None)

    @property
    def workers(self) -> dict[WorkerId, ProgramName]:
        """The workers this machine should have, and the program of each."""
        slots = 0 if self.drained else self.num_gpus
        return {worker_id(self.id, slot): worker_program(slot) for slot in range(slots)}
