"""All checks, in the order of their groups, and what they find."""

from __future__ import annotations

from emp_orch.control.doctor.checks import (
    api,
    basics,
    cards,
    checkouts,
    engines,
    holds,
    machines,
    plane,
    redis,
    workers,
)
from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.model import Cannot, Check, Finding, Level

CHECKS: tuple[Check, ...] = (
    *basics.CHECKS,
    *plane.CHECKS,
    *holds.CHECKS,
    *redis.CHECKS,
    *api.CHECKS,
    *engines.CHECKS,
    *checkouts.CHECKS,
    *cards.CHECKS,
    *machines.CHECKS,
    *workers.CHECKS,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Every check's findings: its problems, else one that says all is well, or that it could not tell."""
    return tuple(finding for check in CHECKS for finding in _run(check, facts))


def _run(check: Check, facts: Facts) -> list[Finding]:
    try:
        problems = [
            Finding(check=check.name, group=check.group, level=p.level, what=p.what, where=p.where, fix=p.fix)
            for p in check.find(facts)
        ]
        fine = "" if problems else check.fine(facts)
    except Cannot as e:
        return [Finding(check=check.name, group=check.group, level=Level.UNKNOWN, what=str(e))]
    if problems or not fine:
        return problems
    return [Finding(check=check.name, group=check.group, level=Level.OK, what=fine)]
