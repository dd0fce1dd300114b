"""One round of the reconciler as a function: inputs → drift, plan, decision, journal entries, the next memory.

All that it depends on is in `Inputs`, and all of that is data: the same inputs give the same round again.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, structs

from emp_orch.fleet.drift.kinds import BEHIND, UNHEARD, Desired, Drift, Kind, grace_ms
from emp_orch.fleet.drift.members import awaited, patience_ms
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.journal import entries as journal
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key, plan, remedy
from emp_orch.fleet.policy import breaker, budget, rollout
from emp_orch.fleet.policy.gate import gate
from emp_orch.fleet.policy.holds import Decision, describe
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.memory import (
    REPORT_LAG_MS,
    Memory,
    Rollout,
    asked_anew,
    forgiven,
    on_machine,
    on_program,
    settled,
    tried,
    up_to,
)
from emp_orch.fleet.policy.policies import busy_at
from emp_orch.fleet.policy.situation import Situation
from emp_orch.fleet.pools.differences import pool_drift
from emp_orch.fleet.pools.size import PoolSize, sizes


class Inputs(Struct, frozen=True, kw_only=True):
    """`asked`: operations that people asked for, to be begun whatever stands against them. `running`: keys of those
    that the reconciler is at. `closes_breaker`: somebody said that what failed so far counts no more. `jitter`: 0 … 1.
    `desired` has the drains of `overrides` in it already.
    """

    desired: Desired
    observed: Observed
    memory: Memory
    overrides: tuple[Override, ...] = ()
    asked: tuple[Operation, ...] = ()
    running: frozenset[str] = frozenset()
    closes_breaker: bool = False
    jitter: float = 0.0


class Round(Struct, frozen=True, kw_only=True):
    """`rollback`: the generation to go back to by itself. `pools`: their sizes, and why."""

    operations: tuple[Operation, ...]
    decision: Decision
    items: tuple[Item, ...]
    entries: tuple[Entry, ...]
    memory: Memory
    rollback: int | None
    pools: dict[PoolName, PoolSize] = {}


def decide(inputs: Inputs, drifts: tuple[Drift, ...] | None = None) -> Round:
    """One round. `drifts`: what `diff` says of the inputs, where the caller knows it already."""
    desired, now_ms = inputs.desired, inputs.observed.now_ms
    found = diff(desired, inputs.observed) if drifts is None else drifts
    before = up_to(inputs.memory, now_ms)
    pools = sizes(desired, inputs.observed, before.pools, inputs.overrides)
    found = (*found, *pool_drift(pools, desired, inputs.observed)) if pools else found
    onsets, entries = journal.onsets(found, before.onsets, now_ms)
    going_on = rollout.step(found, desired, before, now_ms)
    memory = _noted(inputs, found, structs.replace(before, onsets=onsets), going_on)
    memory = structs.replace(memory, pools={name: size.memory for name, size in pools.items()})
    planned = plan(
        desired,
        tuple(
            d
            for d in found
            if now_ms - onsets[d.key].since_ms >= _grace_ms(d, inputs) and not _between(d, memory, now_ms)
        ),
    )
    escalated = budget.escalate(planned, desired, inputs.observed, memory)
    busy = busy_at(escalated.operations, desired, inputs.observed, memory)
    memory = structs.replace(memory, quarantined=escalated.quarantined, overrides=inputs.overrides, busy=busy)
    situation = Situation(
        desired=desired,
        observed=inputs.observed,
        drifts=found,
        memory=_begun(memory, inputs.asked, inputs),
        quarantined=escalated.quarantined,
        overrides=inputs.overrides,
        running=inputs.running,
        jitter=inputs.jitter,
    )
    gated = gate(escalated.operations, situation)
    asked = tuple(o for o in inputs.asked if o.key not in inputs.running)
    decision = structs.replace(gated, run=(*asked, *(o for o in gated.run if o.key not in {a.key for a in asked})))
    memory = _begun(memory, decision.run, inputs)
    memory = structs.replace(memory, rollout=rollout.sent(memory.rollout, decision.run))
    memory = settled(memory, frozenset(o.key for o in escalated.operations), now_ms, desired.limits.window_ms)
    by_key = {o.key: o for o in escalated.operations}
    actions = {d.key: o for d in found if (o := _action(d, desired, escalated, by_key)) is not None}
    onsets, decisions = journal.decided(onsets, {k: o.key for k, o in actions.items()}, decision)
    memory = structs.replace(memory, onsets=onsets)
    return Round(
        operations=escalated.operations,
        decision=decision,
        items=tuple(_item(d, actions.get(d.key), memory, decision) for d in found),
        entries=(
            *(*entries, *journal.policy_entries(before, memory)),
            *(*journal.resized(before.pools, pools), *decisions),
        ),
        memory=memory,
        rollback=rollout.going_back(memory.rollout, desired),
        pools=pools,
    )


def _grace_ms(drift: Drift, inputs: Inputs) -> int:
    """How long it must have stood before anything is done about it."""
    patience = patience_ms(drift, inputs.desired, inputs.observed)
    return max(grace_ms(drift.kind, inputs.desired.limits), patience)


def _between(drift: Drift, memory: Memory, now_ms: int) -> bool:
    """Whether a program is seen stopped in the midst of a restart of ours: its report comes a moment after that."""
    if drift.kind is not Kind.PROGRAM_STOPPED or now_ms - memory.onsets[drift.key].since_ms >= REPORT_LAG_MS:
        return False
    return operation_key(Verb.RESTART_PROGRAM, drift.machine_id, drift.program) in memory.attempts


def _noted(inputs: Inputs, drifts: tuple[Drift, ...], memory: Memory, going_on: Rollout) -> Memory:
    """Memory after what this look showed and people said, before anything is decided."""
    desired, now_ms = inputs.desired, inputs.observed.now_ms
    for operation in inputs.asked:
        memory = forgiven(memory, _subject(operation))
    if inputs.closes_breaker:
        memory = structs.replace(memory, breaker=breaker.reset(now_ms))
    # Who is just coming was in order in no life that counts, whatever a former one of its id was.
    coming = awaited(desired, drifts) | {d.machine_id for d in drifts if _comes(d, desired)}
    drifting = {d.machine_id for d in drifts} | coming
    unproven = coming | set(desired.machines if memory.unproven is None else memory.unproven)
    known = memory.rollout.generation
    if known != desired.generation:
        changed = {d.machine_id for d in drifts if d.kind in BEHIND}
        # Of one that says nothing nobody can tell that the generation does not change it.
        memory = asked_anew(memory, changed | {d.machine_id for d in drifts if d.kind in UNHEARD})
        unproven |= changed
    memory = structs.replace(memory, unproven=frozenset(i for i in unproven if i in drifting and i in desired.machines))
    memory = structs.replace(memory, rollout=going_on)
    return structs.replace(memory, breaker=breaker.step(drifts, desired, memory, now_ms))


def _comes(drift: Drift, desired: Desired) -> bool:
    """Whether a member of a pool is at its start."""
    return drift.machine_id in desired.members and drift.kind in (Kind.MACHINE_BOOTING, Kind.MACHINE_STARTING)


def _subject(operation: Operation) -> Callable[[str], bool]:
    """Which operations a person's word about this one sets free."""
    if operation.program is not None:
        return on_program(operation.machine_id, operation.program)
    if operation.verb is Verb.RESTART_MACHINE:
        return on_machine(operation.machine_id)
    return operation.key.__eq__


def _begun(memory: Memory, operations: tuple[Operation, ...], inputs: Inputs) -> Memory:
    """What people asked for, by an order or a generation, counts towards no budget, and sets free what was tried."""
    asked, now_ms, window_ms = {o.key for o in inputs.asked}, inputs.observed.now_ms, inputs.desired.limits.window_ms
    for operation in operations:
        if operation.key not in inputs.running:
            wanted = operation.key in asked or rollout.is_wanted(operation, memory.rollout)
            memory = forgiven(memory, _subject(operation)) if wanted else memory
            memory = tried(memory, operation, now_ms, window_ms, counts=not wanted)
    return memory


def _action(
    drift: Drift, desired: Desired, escalated: budget.Escalated, by_key: dict[str, Operation]
) -> Operation | None:
    """The operation that this drift leads to, with what has taken its place."""
    operation = remedy(drift, desired)
    if operation is None:
        return None
    return by_key.get(escalated.instead.get(operation.key, operation.key))


def _item(drift: Drift, operation: Operation | None, memory: Memory, decision: Decision) -> Item:
    action, held, next_ms = describe(drift, operation, decision)
    holding = decision.holding.get(operation.key) if operation else None
    attempt = memory.attempts.get(operation.key) if operation else None
    return Item(
        drift=drift,
        since_ms=memory.onsets[drift.key].since_ms,
        action=action,
        operation=operation.key if operation else "",
        attempts=attempt.count if attempt else 0,
        last_attempt_ms=attempt.last_ms if attempt else None,
        next_attempt_ms=next_ms,
        held=held,
        hold=holding.by if holding else None,
        failed=attempt.error if attempt else "",
    )
