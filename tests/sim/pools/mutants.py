"""Emp with a promise about pools taken away, one each; the simulation of pools must notice.

`python -m sim.pools.mutants NAME HISTORIES` (from tests/) runs histories on that one, and prints how the first ended
badly.
"""

from __future__ import annotations

import sys

from sim.mutants import Edit, Mutant, run


def _one(name: str, breaks: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(name, breaks, (Edit(module, old, new),))


_HANDS = "control.pools.hands"
MUTANTS = (
    Mutant(
        "as many as are wanted",
        "max",
        (
            Edit(
                "fleet.pools.differences",
                "max(0, min(lacking, AT_ONCE, pool.max_size - len(size.members)))",
                "min(lacking, AT_ONCE)",
            ),
            Edit(_HANDS, "most=pool.max_size)", "most=0)"),
        ),
    ),
    Mutant(
        "busy ones go too",
        "idle first",
        (
            Edit("fleet.pools.size", "if not m.busy]", "]"),
            Edit("fleet.pools.size", "else idle[m.member.id]", "else idle.get(m.member.id, 0)"),
        ),
    ),
    _one(
        *("removed without a drain", "drained first", "fleet.plan.operations"),
        *("verb = Verb.DRAIN_MEMBER", "verb = Verb.REMOVE_MEMBER"),
    ),
    _one(
        "removed while its workers are told to end",
        "drained first",
        "fleet.pools.standing",
        "empty=not jobs and machine.drained and holds_none",
        "empty=machine.drained",
    ),
    _one(
        *("silent ones count as living", "living stay", "fleet.pools.size"),
        *("max(0, len(alive) - size.wanted)", "max(0, size.there - size.wanted)"),
    ),
    _one("the way up is not waited for", "flapping", "fleet.pools.windows", ">= up_after_ms", ">= 0"),
    _one("the way down is not waited for", "flapping", "fleet.pools.windows", ">= down_after_ms", ">= 0"),
    _one(
        *("what was wanted meanwhile is forgotten", "flapping", "fleet.pools.windows"),
        *("since_ms=beyond[0].since_ms", "since_ms=min(s.since_ms for s in steps)"),
    ),
    _one(
        *("the dearest first", "cheapest first", "fleet.pools.shares"),
        *("(pools[n].cost, n))", "(-pools[n].cost, n))"),
    ),
    _one("orders are not asked", "order", "fleet.pools.size", "orders.get(name))", "None)"),
    _one(
        *("what says nothing has no boxes", "gone", "fleet.pools.standing"),
        *(
            "boxes = None if seen.boxes is None else {box.member_id: box for box in seen.boxes}",
            "boxes = {box.member_id: box for box in seen.boxes or ()}",
        ),
    ),
    _one(
        *("who is silent is never forgotten", "forgotten", "fleet.drift.members"),
        *("over = observed.now_ms - since_ms >= _forget_after_ms(pool)", "over = False"),
    ),
    _one(
        *("a forgotten member's box comes back", "void token", "api.joining.membership"),
        *("if member is None and opened.member_id:", "if False:"),
    ),
    _one(
        *("a box whose name another took comes back", "void token", "api.joining.membership"),
        *("if member is None or not opened.is_of(member):", "if member is None:"),
    ),
    _one(
        *("a box of nobody stays", "settles", "fleet.pools.differences"),
        *("for box in _orphans(seen.boxes or (), pool, desired):", "for box in ():"),
    ),
    _one(
        *("time alone makes no drift of a member", "drift book", "fleet.drift.incremental"),
        *(", *self._drifts, *desired.unjoined}", ", *self._drifts}"),
    ),
    _one(
        *("a job is waited for for ever", "settles", "control.pools.keeper"),
        *("waiting=waiting)", "waiting=())"),
    ),
)
BY_NAME = {m.name: m for m in MUTANTS}


if __name__ == "__main__":
    run(BY_NAME[sys.argv[1]], "sim.pools.dice", int(sys.argv[2]))
