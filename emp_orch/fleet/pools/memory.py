"""What is remembered of a pool from look to look: its size, what has been wanted for how long, who is idle."""

from __future__ import annotations

from msgspec import Struct, structs

from emp_orch.fleet.model.fleet import MachineId

# How long a member may be awaited before that is told, and a pool may have no box come before others run its jobs.
AWAITED_MS = 120_000
# Of a window. Who asks for another size at each look is told apart no finer.
WINDOW_STEPS = 32


class Step(Struct, frozen=True, kw_only=True):
    """Of a window upward: at least `level` was wanted all the time since `since_ms`; of one downward: at most."""

    level: int
    since_ms: int


class PoolMemory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`size` is what is wanted. `up` are the steps above it, the lowest first; `down` those below, the highest first.
    `idle`: members that run no job, and since when. `short_ms`: since when fewer are in than are to be, None: they are.
    `starved_ms`: since when fewer have a box than are wanted, and none got one, None: all have; `boxes`: how many had.
    """

    size: int
    up: tuple[Step, ...] = ()
    down: tuple[Step, ...] = ()
    idle: dict[MachineId, int] = {}
    short_ms: int | None = None
    starved_ms: int | None = None
    boxes: int = 0


def up_to(memory: PoolMemory, now_ms: int) -> PoolMemory:
    """`memory` with no time after `now_ms`."""

    def past(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(structs.replace(s, since_ms=min(s.since_ms, now_ms)) for s in steps)

    return structs.replace(
        memory,
        up=past(memory.up),
        down=past(memory.down),
        idle={i: min(at, now_ms) for i, at in memory.idle.items()},
        short_ms=None if memory.short_ms is None else min(memory.short_ms, now_ms),
        starved_ms=None if memory.starved_ms is None else min(memory.starved_ms, now_ms),
    )


def hungered(memory: PoolMemory, boxes: int, now_ms: int) -> PoolMemory:
    """`memory` after a look at which `boxes` members have a box. A box that comes begins the wait anew; but once others
    run its jobs, only when all have come.
    """
    if boxes >= memory.size:
        return structs.replace(memory, starved_ms=None, boxes=boxes)
    came = boxes > memory.boxes and not is_starved(memory, now_ms)
    since_ms = now_ms if memory.starved_ms is None or came else memory.starved_ms
    return structs.replace(memory, starved_ms=since_ms, boxes=boxes)


def is_starved(memory: PoolMemory, now_ms: int) -> bool:
    """Whether no box came for so long that other pools are to run what waits for this one."""
    return memory.starved_ms is not None and now_ms - memory.starved_ms >= AWAITED_MS
