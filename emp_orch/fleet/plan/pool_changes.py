"""What a generation changes in the pools of another, a line a pool: of their members nobody reads forty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from msgspec import structs

from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.desired.workers import any_member
from emp_orch.fleet.model.fleet import Fleet, Pool, PoolName
from emp_orch.fleet.model.pools import JOIN


def pool_changes(
    before: Fleet | None, after: Fleet, boxes: Mapping[PoolName, int] = MappingProxyType({})
) -> tuple[str, ...]:
    """In the order of the file, then those that went: `+ pool renders: 0..40 boxes by join`. `boxes`: how many members
    each has now, as far as that is known.
    """
    old = before.pools if before is not None else {}
    told = []
    for name, pool in after.pools.items():
        if before is None or name not in old:
            told.append(f"+ pool {name}: {size_of(pool)} boxes by {pool.provider}")
        elif how := ", ".join(_how(before, old[name], after, pool, boxes.get(name, 0))):
            told.append(f"~ pool {name}: {how}")
    gone = (f"- pool {name}: {_members_go(boxes.get(name, 0))}" for name in old if name not in after.pools)
    return (*told, *gone)


def size_of(pool: Pool) -> str:
    """As emp.yaml says it."""
    return str(pool.min_size) if pool.min_size == pool.max_size else f"{pool.min_size}..{pool.max_size}"


def _how(before: Fleet, was: Pool, after: Fleet, becomes: Pool, boxes: int) -> Iterator[str]:
    if size_of(was) != size_of(becomes):
        yield f"size {size_of(was)} → {size_of(becomes)}"
    if was.provider != becomes.provider:
        went = "" if was.provider == JOIN else f"; {_boxes_go(boxes, was.provider)}"
        yield f"provider {was.provider} → {becomes.provider}{went}"
    elif was.options != becomes.options:
        which = f"of {boxes} boxes those" if boxes > 1 else "boxes"
        yield "provider_options" + ("" if was.provider == JOIN else f"; {which} that it no longer finds drain and go")
    if (was.scale, was.forget_after_s, was.cost) != (becomes.scale, becomes.forget_after_s, becomes.cost):
        yield "how it is sized"
    if _of_member(before, was) != _of_member(after, becomes):
        yield "its members change in place"
    elif _of_box(was) != _of_box(becomes):
        yield "new members get other boxes"


def _boxes_go(boxes: int, provider: str) -> str:
    """0: none, or nobody knows."""
    if not boxes:
        return "its boxes drain and go"
    return f"1 box of {provider} drains and goes" if boxes == 1 else f"{boxes} boxes of {provider} drain and go"


def _members_go(members: int) -> str:
    if not members:
        return "its members go"
    return "its 1 member goes" if members == 1 else f"its {members} members go"


def _of_member(fleet: Fleet, pool: Pool) -> str:
    return config_hash(desired_machine(fleet, machine_of_member(pool, any_member(pool))))


def _of_box(pool: Pool) -> object:
    """What a member has that only another box changes."""
    return structs.replace(pool.template, origin="", env={}, labels={})
