"""A pool, its members, and a generation with them, built from a few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import structs

from emp_orch.control.host.generation import as_desired
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, Pool, PoolName, PoolScale, Service
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.store.fleet.generations import Generation
from support.fleet.fleets import OLD_MS, fleet, machine


def pool(name: str = "renders", services: Iterable[str] = (), **changes: Any) -> Pool:
    """Of 0 to 40 boxes with one GPU; what is silent for 600 s is forgotten."""
    template = machine("", services=services, runtime=RuntimeKind.EXTERNAL, origin=f"emp.yaml:{name}")
    fields: dict[str, Any] = {
        "name": PoolName(name),
        "provider": "join",
        "min_size": 0,
        "max_size": 40,
        "template": template,
        "scale": PoolScale(jobs_per_gpu=1.0, up_after_s=15.0, down_after_s=300.0),
        "forget_after_s": 600.0,
        "cost": 0.0,
        "options": {},
        "origin": f"emp.yaml:{name}",
    }
    return Pool(**{**fields, **changes})


def member(suffix: str = "7f3k", pool: str = "renders", **changes: Any) -> Member:
    """One that joined an hour ago."""
    fields: dict[str, Any] = {
        "id": MachineId(f"{pool}-{suffix}"),
        "pool": PoolName(pool),
        "state": MemberState.IN,
        "born_ms": OLD_MS,
        "joined_ms": OLD_MS,
    }
    return Member(**{**fields, **changes})


def pooled(*pools: Pool, services: Iterable[Service] = (), base: Fleet | None = None) -> Fleet:
    found = base or fleet(services)
    return structs.replace(found, pools={p.name: p for p in pools})


def generation(of: Fleet, *members: Member, number: int = 1, **changes: Any) -> Generation:
    """As those read it who act by it."""
    return Generation(number=number, at_ms=OLD_MS, fleet=with_members(of, members), digest="d", **changes)


def wanted(*members: Member, of: Fleet | None = None, **changes: Any) -> Desired:
    """What the pool `renders` and these members come to."""
    return as_desired(generation(of or pooled(pool()), *members, **changes))
