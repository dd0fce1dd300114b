"""What is shown of how pools fared over the last day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.pools.course import Point
from emp_orch.web.times import rfc3339


class PointView(Struct, frozen=True, kw_only=True):
    """How a pool stood from `at` on, until the next point: jobs `waiting` and `running`, members `there`, `wanted`."""

    pool: str
    at: str
    waiting: int
    running: int
    there: int
    wanted: int


def point_key(point: PointView) -> str:
    """By which clients know it."""
    return f"{point.pool}/{point.at}"


def point_views(courses: Mapping[PoolName, tuple[Point, ...]]) -> dict[str, PointView]:
    """Of all pools, by key."""
    return {point_key(view): view for name, course in courses.items() for view in _points(name, course)}


def _points(name: PoolName, course: tuple[Point, ...]) -> Iterator[PointView]:
    for point in course:
        waiting, running, there, wanted = point.figures
        yield PointView(
            pool=name, at=rfc3339(point.at_ms), waiting=waiting, running=running, there=there, wanted=wanted
        )
