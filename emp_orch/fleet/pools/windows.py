"""A number that follows what is wanted only once that has been wanted for a while: the least of a window on the way up,
the most of one on the way down. So neither a peak nor a gap moves it.
"""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.pools.memory import WINDOW_STEPS, Step

Steps = tuple[Step, ...]


class Window(Struct, frozen=True, kw_only=True):
    """What becomes of `size`. `next_level` is what it will be at `next_ms` if the same stays wanted; None: no other."""

    size: int
    up: Steps
    down: Steps
    next_level: int | None = None
    next_ms: int = 0


def follow(
    wanted: int, size: int, up: Steps, down: Steps, *, now_ms: int, up_after_ms: int, down_after_ms: int
) -> Window:
    """One look later. `up` and `down` are the steps of the look before."""
    above = _noted(up, wanted, now_ms, 1) if wanted > size else ()
    below = _noted(down, wanted, now_ms, -1) if wanted < size else ()
    due = [s.level for s in above if now_ms - s.since_ms >= up_after_ms]
    due += [s.level for s in below if now_ms - s.since_ms >= down_after_ms]
    # The steps of one direction only are ever there, the farthest last.
    after = due[-1] if due else size
    above = tuple(s for s in above if s.level > after)
    below = tuple(s for s in below if s.level < after)
    coming = above[:1] or below[:1]
    wait_ms = up_after_ms if above else down_after_ms
    return Window(
        size=after,
        up=above,
        down=below,
        next_level=coming[0].level if coming else None,
        next_ms=coming[0].since_ms + wait_ms if coming else 0,
    )


def _noted(steps: Steps, level: int, now_ms: int, sign: int) -> Steps:
    """`steps` after `level` was wanted too: what goes beyond it is wanted no more, and has been at least this."""
    kept = tuple(s for s in steps if s.level * sign < level * sign)
    beyond = steps[len(kept) :]
    if beyond:
        return (*kept, Step(level=level, since_ms=beyond[0].since_ms))
    if len(kept) >= WINDOW_STEPS:
        kept = kept[: WINDOW_STEPS - 1]
    return (*kept, Step(level=level, since_ms=now_ms))
