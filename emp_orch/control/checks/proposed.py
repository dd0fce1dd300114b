"""What is checked before anything starts: what an emp.yaml asks for, and what applying it would do. apply/ makes it."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.control.plane.supervisord_plane import Age
from emp_orch.fleet.model.fleet import Fleet, ImageThere, MachineId
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.plan.operations import MachineChange
from emp_orch.settings import Settings


class Proposal(Struct, frozen=True, kw_only=True):
    """Everything that is needed to make a fleet so. `secrets` maps a reference's key to its value.

    `source` is what the fleet is taken from, in words; `why` stands in the history. `base` is the generation that
    must be in force still, None when any may be. `package` is what the workers run. `looks_up`: what the names of its
    containers' images mean is looked up anew; `pull`: and what registries have of that name now is pulled first.
    """

    fleet: Fleet
    settings: Settings
    secrets: dict[str, str]
    source: str
    why: str
    base: int | None = None
    package: WorkerPackage | None = None
    looks_up: bool = False
    pull: bool = False


class Preview(Struct, frozen=True, kw_only=True):
    """What applying would do.

    `number` is the generation in force (0: none); `same` says it asks for the same. `running` are the settings that
    the daemons were last started with, None when none run. `rotated` are secrets whose values changed, by reference.
    `removed` are the machines that this apply removes. `other_package`: workers that run get another version of emp.
    `other_emp`: the generation in force was published by another emp. `plane_age`: whether the control plane that runs
    is of another emp.
    `images`: what the names of its containers' images mean on their hosts, as far as those have them and answer.
    `gpus` says which of this host's GPUs are used, where somebody allots them now or did before.
    """

    number: int
    same: bool
    changes: tuple[MachineChange, ...]
    pools: tuple[str, ...] = ()
    plane_runs: bool
    settings_change: bool
    running: Settings | None
    rotated: tuple[str, ...]
    removed: tuple[MachineId, ...] = ()
    other_package: bool = False
    other_emp: bool = False
    plane_age: Age = Age.NEW
    gpus: str = ""
    images: tuple[ImageThere, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        runs_as_it_should = self.plane_runs and self.plane_age is Age.NEW and not self.settings_change
        return self.same and runs_as_it_should and not (self.changes or self.pools or self.rotated)
