"""The start-up sequence of a machine as data: phases in order, each with its step name and programs.

Services start together, each after what it depends on: fifty that take a second each take a second.
"""

from __future__ import annotations

from itertools import groupby

from msgspec import Struct

from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.model.observed import ProgramReport, ProgramState


class Phase(Struct, frozen=True, kw_only=True):
    """`step` is announced as startup_step."""

    step: str
    programs: tuple[DesiredProgram, ...]


def phases(machine: DesiredMachine) -> tuple[Phase, ...]:
    """shared set-up, then each installer, then each service, then the workers (DESIGN.md §5).

    No program waits for one of a later phase.
    """
    grouped = [Phase(step=step, programs=tuple(programs)) for step, programs in groupby(machine.programs, key=_step)]
    if not machine.workers:
        grouped.append(Phase(step="workers_starting", programs=()))
    return tuple(grouped)


def side_by_side(machine: DesiredMachine) -> tuple[tuple[Phase, ...], ...]:
    """The phases, those together that begin together; the next begin when all of those have settled."""
    in_turn = enumerate(phases(machine))
    batches = groupby(in_turn, key=lambda one: -1 if _of_services(one[1]) else one[0])
    return tuple(tuple(phase for _, phase in batch) for _, batch in batches)


def _of_services(phase: Phase) -> bool:
    return any(program.kind is ProgramKind.SERVICE for program in phase.programs)


def _step(program: DesiredProgram) -> str:
    match program.kind:
        case ProgramKind.SETUP:
            return "shared_setup_starting"
        case ProgramKind.INSTALLER:
            return f"{program.service}_install_starting"
        case ProgramKind.SERVICE:
            return f"{program.service}_services_starting"
        case ProgramKind.WORKER:
            return "workers_starting"


def is_up(program: DesiredProgram, got: ProgramReport | None) -> bool:
    """Whether the program does what it is there for: a step has ended well, a service answers, a worker runs."""
    if got is None:
        return False
    if program.kind.once:
        return got.state is ProgramState.EXITED and got.exit_status == 0
    return got.state is ProgramState.RUNNING and (program.health is None or got.healthy is True)


def has_failed(program: DesiredProgram, got: ProgramReport | None) -> bool:
    """Whether waiting longer is in vain unless somebody acts."""
    if got is None:
        return False
    if got.state is ProgramState.FATAL:
        return True
    if program.kind.once:
        return got.state is ProgramState.EXITED and got.exit_status != 0
    return got.state is ProgramState.EXITED or got.healthy is False
