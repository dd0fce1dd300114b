"""Drift → operations that would remove it: data, with a text form that reads like minutes.

The same desired and observed state give the same plan; a converged fleet gives an empty one. What may run now is
for fleet/policy to decide; this module only says what would help.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, structs

from emp_orch.fleet.desired.containers import another_image, container_hash, image_moved, unpinned
from emp_orch.fleet.desired.inherits import InheritChange, inherit_changes
from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredContainer, DesiredMachine, DesiredProgram
from emp_orch.fleet.drift.kinds import BEHIND
from emp_orch.fleet.drift.table import Desired, Drift, Kind
from emp_orch.fleet.model.fleet import MachineId, Origin, PoolName, ProgramName, WorkerId
from emp_orch.fleet.model.observed import Instance, InstanceState


class Verb(StrEnum):
    START_MACHINE = "start machine"
    RESTART_MACHINE = "restart machine"
    REMOVE_MACHINE = "remove machine"
    SEND_CONFIG = "send configuration"
    START_PROGRAM = "start program"
    RESTART_PROGRAM = "restart program"
    STOP_PROGRAM = "stop program"
    START_PART = "start part"
    FORGET_WORKER = "forget worker"
    CREATE_MEMBER = "create member"
    DRAIN_MEMBER = "drain member"
    REMOVE_MEMBER = "remove member"
    FORGET_MEMBER = "forget member"


class Effect(StrEnum):
    """How much of what runs is touched."""

    START = "start"
    IN_PLACE = "in place"
    RESTART = "restart"
    RECREATE = "recreate"
    STOP = "stop"
    REMOVE = "remove"


_EFFECTS = {
    Verb.START_MACHINE: Effect.START,
    Verb.RESTART_MACHINE: Effect.RESTART,
    Verb.REMOVE_MACHINE: Effect.REMOVE,
    Verb.SEND_CONFIG: Effect.IN_PLACE,
    Verb.START_PROGRAM: Effect.START,
    Verb.RESTART_PROGRAM: Effect.RESTART,
    Verb.STOP_PROGRAM: Effect.STOP,
    Verb.START_PART: Effect.START,
    Verb.FORGET_WORKER: Effect.REMOVE,
    Verb.CREATE_MEMBER: Effect.START,
    Verb.DRAIN_MEMBER: Effect.STOP,
    Verb.REMOVE_MEMBER: Effect.REMOVE,
    Verb.FORGET_MEMBER: Effect.REMOVE,
}


def operation_key(verb: Verb, machine_id: MachineId, inside: str | None = None) -> str:
    """Identifies the same operation across ticks."""
    return "/".join(filter(None, (verb.replace(" ", "-"), machine_id, inside)))


class Operation(Struct, frozen=True, kw_only=True):
    """One step. `after` are keys of operations that must be done first; `seen_ms` guards what is forgotten.

    `recreates`: the restart is with a new container. `brings`: it gives the machine what that lacks of the generation
    in force: somebody asked for it, it mends nothing. `pool`: of a member; where members are created, `machine_id` is
    the pool's name, and `count` says how many.
    """

    verb: Verb
    machine_id: MachineId
    program: ProgramName | None = None
    worker_id: WorkerId | None = None
    cause: str
    origin: Origin
    seen_ms: int | None = None
    after: tuple[str, ...] = ()
    recreates: bool = False
    brings: bool = False
    pool: PoolName = PoolName("")
    count: int = 0

    @property
    def key(self) -> str:
        return operation_key(self.verb, self.machine_id, self.program or self.worker_id)

    @property
    def effect(self) -> Effect:
        return Effect.RECREATE if self.recreates else _EFFECTS[self.verb]

    @property
    def text(self) -> str:
        """One line: what, on what, how, why, and the line of emp.yaml it comes from."""
        resource = " ".join(filter(None, (self.machine_id, self.program or self.worker_id)))
        where = f"  [{self.origin}]" if self.origin else ""
        waits = f"  after {', '.join(self.after)}" if self.after else ""
        resource += f" ({self.count})" if self.count > 1 else ""
        return f"{self.verb} {resource}  ({self.effect}): {self.cause}{where}{waits}"


_MACHINE_VERB = {
    Kind.MACHINE_MISSING: Verb.START_MACHINE,
    Kind.MACHINE_STALE: Verb.RESTART_MACHINE,
    Kind.MACHINE_WRONG_REDIS: Verb.RESTART_MACHINE,
    Kind.CONTAINER_OUTDATED: Verb.RESTART_MACHINE,
    # To start what is there means to let it go on, and to connect it.
    Kind.CONTAINER_PAUSED: Verb.START_MACHINE,
    Kind.CONTAINER_CUT_OFF: Verb.START_MACHINE,
    Kind.SUPERVISORD_OUTDATED: Verb.RESTART_MACHINE,
    Kind.CONFIG_BEHIND: Verb.SEND_CONFIG,
    Kind.GENERATION_BEHIND: Verb.SEND_CONFIG,
    Kind.PROGRAM_MISSING: Verb.SEND_CONFIG,
    Kind.PROGRAM_SURPLUS: Verb.SEND_CONFIG,
}
_PROGRAM_VERB = {
    Kind.PROGRAM_FLAPPING: Verb.STOP_PROGRAM,
    Kind.PROGRAM_FATAL: Verb.START_PROGRAM,
    Kind.PROGRAM_STOPPED: Verb.START_PROGRAM,
    Kind.PROGRAM_UNHEALTHY: Verb.RESTART_PROGRAM,
    Kind.WORKER_WRONG_MACHINE: Verb.RESTART_PROGRAM,
    Kind.WORKER_MISSING: Verb.RESTART_PROGRAM,
    Kind.WORKER_STALE: Verb.RESTART_PROGRAM,
    Kind.WORKER_OUTDATED: Verb.RESTART_PROGRAM,
    Kind.AGENT_OUTDATED: Verb.RESTART_PROGRAM,
    Kind.WORKER_WRONG_CAPABILITIES: Verb.RESTART_PROGRAM,
    Kind.CONNECTOR_UNHEALTHY: Verb.RESTART_PROGRAM,
    Kind.SERVICE_STUCK: Verb.RESTART_PROGRAM,
    Kind.CONTROL_DOWN: Verb.START_PART,
}


def remedy(drift: Drift, desired: Desired) -> Operation | None:
    """The operation that answers one drift; None when there is nothing to do, or not yet."""
    if drift.kind in _MACHINE_VERB:
        return Operation(
            verb=_MACHINE_VERB[drift.kind],
            machine_id=drift.machine_id,
            cause=f"{drift.subject}: {drift.cause}" if drift.subject != drift.machine_id else drift.cause,
            origin=drift.origin,
            recreates=drift.kind is Kind.CONTAINER_OUTDATED,
            brings=drift.kind in BEHIND,
        )
    if drift.kind in _PROGRAM_VERB and drift.program is not None:
        return Operation(
            verb=_PROGRAM_VERB[drift.kind],
            machine_id=drift.machine_id,
            program=drift.program,
            cause=f"{'it' if drift.subject == drift.program else drift.subject} is {drift.observed}: {drift.cause}",
            origin=drift.origin,
            brings=drift.kind in BEHIND,
        )
    if drift.kind is Kind.WORKER_SURPLUS and drift.seen_ms is not None:
        return Operation(
            verb=Verb.FORGET_WORKER,
            machine_id=drift.machine_id,
            worker_id=WorkerId(drift.subject),
            cause=drift.cause,
            origin=drift.origin,
            seen_ms=drift.seen_ms,
        )
    gone = drift.kind is Kind.MEMBER_SILENT and drift.seen_ms is not None
    former = drift.kind is Kind.MACHINE_SURPLUS and desired.prune and drift.machine_id in desired.former
    if gone or former:
        return Operation(
            verb=Verb.FORGET_MEMBER,
            machine_id=drift.machine_id,
            cause=f"{drift.observed}: {drift.cause}",
            origin=drift.origin,
            seen_ms=drift.seen_ms,
        )
    if drift.kind is Kind.MACHINE_SURPLUS and desired.prune:
        return Operation(
            verb=Verb.REMOVE_MACHINE,
            machine_id=drift.machine_id,
            cause=drift.cause,
            origin=drift.origin,
            seen_ms=drift.seen_ms,
        )
    return _of_pool(drift, desired) if drift.pool else None


def _of_pool(drift: Drift, desired: Desired) -> Operation | None:
    """What brings a pool to its size: a member drains before it goes."""
    member = desired.members.get(drift.machine_id)
    match drift.kind:
        case Kind.POOL_SHORT:
            verb = Verb.CREATE_MEMBER if drift.count else None
        case Kind.POOL_OVER if member is not None and member.leaving_ms:
            verb = Verb.REMOVE_MEMBER if drift.seen_ms is not None else None
        case Kind.POOL_OVER:
            verb = Verb.DRAIN_MEMBER
        case _:
            verb = Verb.REMOVE_MEMBER
    if verb is None:
        return None
    return Operation(
        verb=verb,
        machine_id=drift.machine_id,
        cause=drift.cause,
        origin=drift.origin,
        pool=drift.pool,
        count=drift.count,
    )


def plan(desired: Desired, drifts: tuple[Drift, ...]) -> tuple[Operation, ...]:
    """The operations for all `drifts`, each once, in order: the first drift that needs one gives its cause."""
    operations: dict[str, Operation] = {}
    for drift in drifts:
        operation = remedy(drift, desired)
        if operation is not None:
            operations.setdefault(operation.key, operation)
    return tuple(operations.values())


def text(operations: tuple[Operation, ...]) -> str:
    """The plan as numbered lines; empty for an empty plan."""
    return "\n".join(f"{n}. {operation.text}" for n, operation in enumerate(operations, start=1))


class MachineChange(Struct, frozen=True, kw_only=True):
    """What applying does to one machine, for a person to read before saying yes."""

    machine_id: MachineId
    effect: Effect
    why: str
    origin: Origin
    added: tuple[ProgramName, ...] = ()
    removed: tuple[ProgramName, ...] = ()
    changed: tuple[ProgramName, ...] = ()
    kept: tuple[ProgramName, ...] = ()
    inherits: tuple[InheritChange, ...] = ()


def changes(
    before: Mapping[MachineId, DesiredMachine],
    after: Desired,
    instances: Mapping[MachineId, Instance],
    source: str = "emp.yaml",
) -> tuple[MachineChange, ...]:
    """What a new generation changes, machine by machine; `before` is the generation in force, if any.

    `source` is what the new one is taken from.
    """
    found = []
    for machine in after.machines.values():
        old = before.get(machine.id)
        instance = instances.get(machine.id)
        unseen = not machine.traits.seen
        if old is None or (not unseen and (instance is None or instance.state is InstanceState.GONE)):
            why = f"new in {source}" if old is None else "it does not run"
            why += "; its box joins by itself" if unseen else ""
            names = tuple(p.name for p in machine.programs)
            found.append(
                MachineChange(machine_id=machine.id, effect=Effect.START, why=why, origin=machine.origin, added=names)
            )
        elif config_hash(old) != config_hash(machine) or image_moved(old.container, machine.container):
            found.append(compare(old, machine))
    for machine_id, old in before.items():
        if machine_id not in after.machines:
            gone = "no longer in emp.yaml" if source == "emp.yaml" else f"not in {source}"
            why = (
                f"{gone}; {_goes_with(instances.get(machine_id))}" if after.prune else f"{gone}; stays until `--prune`"
            )
            names = tuple(p.name for p in old.programs)
            found.append(MachineChange(machine_id=machine_id, effect=Effect.REMOVE, why=why, origin="", removed=names))
    # What was left when it was no longer named goes with the first `--prune`.
    left = sorted(i for i in instances if i not in after.machines and i not in before) if after.prune else ()
    for machine_id in left:
        why = f"{source} has not named it for a while; {_goes_with(instances[machine_id])}"
        found.append(MachineChange(machine_id=machine_id, effect=Effect.REMOVE, why=why, origin=""))
    return tuple(found)


def _goes_with(instance: Instance | None) -> str:
    """What a machine that is removed takes with it."""
    if instance is None:
        return "it is shut out, and its reports are forgotten"
    return "its container and its volume are removed" if instance.host else "its folder is removed"


def compare(old: DesiredMachine, new: DesiredMachine) -> MachineChange:
    """What becomes of a machine that runs `old` and should run `new`."""
    before = {p.name: p for p in old.programs}
    after = {p.name: p for p in new.programs}
    both = [name for name in after if name in before]
    changed = tuple(n for n in both if not _same(before[n], after[n]))
    recreates = container_hash(old) != container_hash(new) or image_moved(old.container, new.container)
    if recreates:
        changed = tuple(both)  # a new container starts all of them
        why = _why_recreate(old.container, new.container)
    elif old.num_gpus != new.num_gpus:
        why = f"num_gpus {old.num_gpus} → {new.num_gpus}"
    else:
        why = "its programs change" if changed or len(both) < max(len(before), len(after)) else "its settings change"
    return MachineChange(
        machine_id=new.id,
        effect=Effect.RECREATE if recreates else Effect.IN_PLACE,
        why=why,
        origin=new.origin,
        added=tuple(n for n in after if n not in before),
        removed=tuple(n for n in before if n not in after),
        changed=changed,
        kept=tuple(n for n in both if n not in changed),
        inherits=inherit_changes(before, after),
    )


def _why_recreate(old: DesiredContainer | None, new: DesiredContainer | None) -> str:
    """What only a new container, or another runtime, can change."""
    if old is None or new is None:
        return "its runtime changes"
    bare = unpinned(old), unpinned(new)
    fields = [f for f in old.__struct_fields__ if getattr(bare[0], f) != getattr(bare[1], f)]
    if not fields:
        return another_image(new.image, old.image_id, new.image_id)
    first = fields[0]
    if first in ("host", "image"):
        return f"{first} {getattr(old, first)} → {getattr(new, first)}"
    return f"its {' and '.join(fields)} change"


def _same(a: DesiredProgram, b: DesiredProgram) -> bool:
    """Whether supervisord sees the same program: how it is checked and what it waits for is the agent's."""
    return structs.replace(a, origin="", health=None, after=()) == structs.replace(b, origin="", health=None, after=())
