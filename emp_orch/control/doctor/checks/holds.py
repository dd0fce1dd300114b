"""Checks of what keeps the reconciler from acting: pauses, drains, the breaker, a rollout that stands, quarantine."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.model import Check, Group, Level, Problem, known
from emp_orch.control.status.inspect import DriftNow


def _overrides(facts: Facts) -> Iterator[Problem]:
    """Somebody meant each of them; it is easily forgotten all the same."""
    for o in known(facts.difference).overrides:
        yield Problem(
            what=f"{'the whole fleet' if o.scope == 'fleet' else o.scope} is {o.what}: {o.words}",
            fix=f"{o.lifted_by}, when that is over",
            where=o.at,
            level=Level.WARN,
        )


def _breaker(facts: Facts) -> Iterator[Problem]:
    breaker = known(facts.difference).breaker
    if breaker is not None:
        trying = f"; it tries {', '.join(breaker.trial[:3])} meanwhile" if breaker.trial else ""
        yield Problem(
            what=f"the breaker is open, emp repairs nothing: {breaker.reason}{trying}",
            fix="find what they share: emp diff, emp logs; emp resume closes it",
        )


def _rollout(facts: Facts) -> Iterator[Problem]:
    rollout = known(facts.difference).rollout
    if rollout is None:
        return
    total = rollout.done + rollout.pending
    words = f"the rollout of generation {rollout.generation} ({rollout.done} of {total} machines)"
    if rollout.halted:
        yield Problem(
            what=f"{words} is halted: {', '.join(rollout.broken[:3])} failed with it",
            fix=f"emp explain {rollout.broken[0]}; then emp apply what is put right, or emp rollback",
        )
    elif rollout.stalled:
        yield Problem(what=f"{words} makes no progress", fix="emp diff says what it waits for; emp rollback goes back")


def _named(d: DriftNow) -> str:
    return " ".join(filter(None, (d.drift.machine_id, d.drift.program)))


def _quarantine(facts: Facts) -> Iterator[Problem]:
    for d in known(facts.difference).quarantined:
        yield Problem(
            what=f"{d.drift.kind} {d.drift.subject} on {d.drift.machine_id}: {d.held}",
            fix=f"emp explain {d.drift.key}; emp restart {_named(d)} releases it",
            where=d.drift.origin,
        )


CHECKS = (
    Check(name="overrides", group=Group.PLANE, fine=lambda _: "nothing is paused or drained", find=_overrides),
    Check(name="breaker", group=Group.PLANE, fine=lambda _: "the breaker is closed", find=_breaker),
    Check(
        name="rollout",
        group=Group.PLANE,
        fine=lambda f: f"no rollout hangs; generation {known(f.difference).generation} is in force",
        find=_rollout,
    ),
    Check(
        name="quarantine",
        group=Group.PLANE,
        fine=lambda _: "nothing is left to a person",
        find=_quarantine,
    ),
)
