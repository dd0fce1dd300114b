"""What a pause holds, and what is desired while machines are drained."""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine, ProgramKind
from emp_orch.fleet.drift.kinds import Desired, with_machines
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.plan.operations import Operation, Verb


def pause_of(operation: Operation, overrides: tuple[Override, ...]) -> Override | None:
    """The pause that holds `operation`, the widest first."""
    found = [o for o in overrides if o.kind is OverrideKind.PAUSE and _touches(o, operation)]
    return min(found, key=lambda o: o.scope.count("/") + (o.machine_id is not None), default=None)


def _touches(pause: Override, operation: Operation) -> bool:
    if pause.machine_id is None:
        return True
    if pause.machine_id != operation.machine_id:
        return False
    # A machine is not restarted under a program that somebody holds still.
    return pause.program is None or pause.program == operation.program or operation.verb is Verb.RESTART_MACHINE


def pause_at(
    overrides: tuple[Override, ...], machine_id: MachineId, program: ProgramName | None = None
) -> Override | None:
    """The widest pause that covers a machine, or one program of it."""
    about = {None, machine_id}
    found = [o for o in overrides if o.kind is OverrideKind.PAUSE and o.machine_id in about]
    covering = [o for o in found if o.program is None or program in (None, o.program)]
    return min(covering, key=lambda o: (o.machine_id is not None, o.program is not None), default=None)


def drain_of(overrides: tuple[Override, ...], machine_id: MachineId) -> Override | None:
    return next((o for o in overrides if o.kind is OverrideKind.DRAIN and o.machine_id == machine_id), None)


def fleet_pause(overrides: tuple[Override, ...]) -> Override | None:
    return next((o for o in overrides if o.kind is OverrideKind.PAUSE and o.machine_id is None), None)


def drained(desired: Desired, overrides: tuple[Override, ...]) -> Desired:
    """What is desired while machines are drained, or are to leave their pool: they keep all but their workers, which
    finish their jobs and end.
    """
    ids = {o.machine_id for o in overrides if o.kind is OverrideKind.DRAIN}
    ids |= {m.id for m in desired.members.values() if m.leaving_ms}
    changed = {i: without_workers(m) for i, m in desired.machines.items() if i in ids}
    return with_machines(desired, changed) if changed else desired


def without_workers(machine: DesiredMachine) -> DesiredMachine:
    return structs.replace(
        machine, programs=tuple(p for p in machine.programs if p.kind is not ProgramKind.WORKER), drained=True
    )
