"""How a pool fared over the last day: jobs and members, each ten seconds of the last minutes, coarser before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from typing import Annotated

from msgspec import Meta, Struct

from emp_orch.units import MAX_MS

# Up to which age ms, how far apart in ms: nearer than the first stretch each point stays, of a step of the others the
# one with the most jobs, and the last.
STRETCHES = ((600_000, 10_000), (7_200_000, 120_000), (86_400_000, 900_000))
FINEST_MS = STRETCHES[0][1]
# A point at least so often, though nothing changed: after a longer gap nobody looked.
STEADY_MS = 300_000
# More than the stretches have room for.
MAX_POINTS = 400
MAX_FIGURE = 1_000_000_000

Ms = Annotated[int, Meta(ge=0, le=MAX_MS)]
Figure = Annotated[int, Meta(ge=0, le=MAX_FIGURE)]


class Point(Struct, frozen=True, array_like=True):
    """From `at_ms` on, until the next: jobs `waiting` and `running`, members `there` and `wanted`."""

    at_ms: Ms
    waiting: Figure
    running: Figure
    there: Figure
    wanted: Figure

    @property
    def figures(self) -> tuple[int, int, int, int]:
        return self.waiting, self.running, self.there, self.wanted


def noted(course: tuple[Point, ...], now: Point) -> tuple[Point, ...]:
    """`course` with `now`, where that says something new; else the same object. Times after `now` are left out: the
    clock was set back.
    """
    known = course if not course or course[-1].at_ms <= now.at_ms else tuple(p for p in course if p.at_ms < now.at_ms)
    if known:
        since_ms = now.at_ms - known[-1].at_ms
        if since_ms < FINEST_MS or (since_ms < STEADY_MS and known[-1].figures == now.figures):
            return known
    return thinned((*known, now), now.at_ms)


def thinned(course: Iterable[Point], now_ms: int) -> tuple[Point, ...]:
    """What of `course`, in order of time, is kept at `now_ms`."""
    found: list[Point] = []
    for step, points in groupby(course, key=lambda p: _step(now_ms - p.at_ms, p.at_ms)):
        if step is not None:
            kept = list(points)
            found += _told(kept) if step[0] else kept
    return tuple(found[-MAX_POINTS:])


def _step(age_ms: int, at_ms: int) -> tuple[int, int] | None:
    """Which stretch a point is in, and which step of it; None: it is too old."""
    for number, (upto_ms, width_ms) in enumerate(STRETCHES):
        if age_ms < upto_ms:
            return number, at_ms // width_ms
    return None


def _told(points: list[Point]) -> Iterator[Point]:
    """Of the points of one step: the peak and the last."""
    peak = max(points, key=lambda p: (p.waiting, p.there))
    if peak is not points[-1]:
        yield peak
    yield points[-1]


def holds_together(course: tuple[Point, ...]) -> bool:
    """Whether a course that was read is one: not too long, and in order."""
    times = [p.at_ms for p in course]
    return len(times) <= MAX_POINTS and all(a < b for a, b in pairwise(times))
