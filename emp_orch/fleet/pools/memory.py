"""What is remembered of a pool from look to look: its size, what has been wanted for how long, who is idle."""

from __future__ import annotations

from msgspec import Struct, structs

from emp_orch.fleet.model.fleet import MachineId

# Of a window. Who asks for another size at each look is told apart no finer.
WINDOW_STEPS = 32


class Step(Struct, frozen=True, kw_only=True):
    """Of a window upward: at least `level` was wanted all the time since `since_ms`; of one downward: at most."""

    level: int
    since_ms: int


class PoolMemory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`size` is what is wanted. `up` are the steps above it, the lowest first; `down` those below, the highest first.
    `idle`: members that run no job, and since when. `short_ms`: since when fewer are in than are to be, None: they are.
    """

    size: int
    up: tuple[Step, ...] = ()
    down: tuple[Step, ...] = ()
    idle: dict[MachineId, int] = {}
    short_ms: int | None = None


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
    )
