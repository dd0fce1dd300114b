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
        *("the dearest first", "flapping", "fleet.pools.shares"),
        *("(pools[n].cost, n))", "(-pools[n].cost, n))"),
    ),
    _one("nobody hands on", "handed on", "fleet.pools.memory", ">= AWAITED_MS", ">= 10**12"),
    _one("jobs are handed on at once", "cheapest first", "fleet.pools.memory", ">= AWAITED_MS", ">= 0"),
    _one(
        *("what was handed on is never taken back", "cheapest first", "fleet.pools.memory"),
        *("if boxes >= memory.size:", "if memory.starved_ms is None and boxes >= memory.size:"),
    ),
    _one(
        *("a box that comes counts for nothing", "cheapest first", "fleet.pools.memory"),
        *("came = boxes > memory.boxes and not is_starved(memory, now_ms)", "came = False"),
    ),
    _one(
        *("one box takes all back", "handed on", "fleet.pools.memory"),
        *("came = boxes > memory.boxes and not is_starved(memory, now_ms)", "came = boxes > memory.boxes"),
    ),
    _one(
        *("what has boxes is handed on too", "cheapest first", "fleet.pools.shares"),
        *("lent[name] = taken - at_hand", "lent[name] = taken"),
    ),
    _one("an order keeps its share", "handed on", "fleet.pools.size", "starved, held)", "starved)"),
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
        *("another box has the same life", "void token", "api.joining.membership"),
        *('"life": member.life + is_other', '"life": member.life'),
    ),
    _one(
        *("a second box is let in beside the first", "one box", "api.joining.membership"),
        *("        refuse_second(member_id,", "        (lambda *of, **more: None)(member_id,"),
    ),
    _one(
        *("a living one's place is given away", "thrown out", "api.joining.membership"),
        *("if m.pool == pool.name and m.state is MemberState.LEFT]", "if m.pool == pool.name]"),
    ),
    _one(
        *("the door has no bound", "max", "api.joining.membership"),
        *("add(made, most=most, ring=False)", "add(made, most=0, ring=False)"),
    ),
    _one(
        *("who comes back is not in", "drift book", "api.joining.membership"),
        *('"state": MemberState.IN,', '"state": member.state,'),
    ),
    Mutant(
        "who is heard counts as gone",
        "gone",
        (
            Edit("fleet.pools.standing", "if boxes is None or heard is not None else", "if boxes is None else"),
            Edit("fleet.pools.standing", "if silent_ms >= SILENT_MS or not member.joined_ms", "if silent_ms >= 0"),
        ),
    ),
    _one(
        *("whose box ended is awaited", "given up", "fleet.pools.standing"),
        *("ended = box.state is BoxState.ENDED and not may_speak", "ended = False"),
    ),
    _one(
        *("the member goes and its box stays", "settles", _HANDS),
        *("for engine in self._keeper.holders(pool.name, operation.machine_id):", "for engine in ():"),
    ),
    _one(
        "the clock is asked",
        "same again",
        "fleet.pools.size",
        "    now_ms = observed.now_ms\n",
        "    now_ms = __import__('time').time_ns()\n",
    ),
    _one(
        *("a look by changes is taken for a whole one", "replay", "fleet.pools.size"),
        *(
            "return in_full(structs.replace(observed, machines=machines, workers=seen), desired.stale_after_ms)",
            "return structs.replace(observed, machines=machines, workers=seen)",
        ),
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
