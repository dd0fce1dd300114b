"""What a generation changes in the pools of another, a line a pool: of their members nobody reads forty."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.desired.workers import any_member
from emp_orch.fleet.model.fleet import Fleet, Pool
from emp_orch.fleet.model.pools import JOIN


def pool_changes(before: Fleet | None, after: Fleet) -> tuple[str, ...]:
    """In the order of the file, then those that went: `+ pool renders: 0..40 boxes by join`."""
    old = before.pools if before is not None else {}
    told = []
    for name, pool in after.pools.items():
        if before is None or name not in old:
            told.append(f"+ pool {name}: {size_of(pool)} boxes by {pool.provider}")
        elif how := ", ".join(_how(before, old[name], after, pool)):
            told.append(f"~ pool {name}: {how}")
    return (*told, *(f"- pool {name}: its members go" for name in old if name not in after.pools))


def size_of(pool: Pool) -> str:
    """As emp.yaml says it."""
    return str(pool.min_size) if pool.min_size == pool.max_size else f"{pool.min_size}..{pool.max_size}"


def _how(before: Fleet, was: Pool, after: Fleet, becomes: Pool) -> Iterator[str]:
    if size_of(was) != size_of(becomes):
        yield f"size {size_of(was)} → {size_of(becomes)}"
    if was.provider != becomes.provider:
        went = "" if was.provider == JOIN else "; its boxes drain and go"
        yield f"provider {was.provider} → {becomes.provider}{went}"
    elif was.options != becomes.options:
        yield "provider_options" + ("" if was.provider == JOIN else "; boxes that it no longer finds drain and go")
    if (was.scale, was.forget_after_s, was.cost) != (becomes.scale, becomes.forget_after_s, becomes.cost):
        yield "how it is sized"
    if _of_member(before, was) != _of_member(after, becomes):
        yield "its members change in place"
    elif _of_box(was) != _of_box(becomes):
        yield "new members get other boxes"


def _of_member(fleet: Fleet, pool: Pool) -> str:
    return config_hash(desired_machine(fleet, machine_of_member(pool, any_member(pool))))


def _of_box(pool: Pool) -> object:
    """What a member has that only another box changes."""
    return structs.replace(pool.template, origin="", env={}, labels={})
