"""`emp scale POOL N|auto`: a person's word on the size of a pool, as an order beside emp.yaml."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.commands.orders import orders_of
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Pool
    from emp_orch.fleet.model.overrides import Override


def is_pool(directory: Path, word: str) -> bool:
    """Whether the generation last applied here has a pool of this name."""
    return _known(directory, word) is not None


def _known(directory: Path, word: str) -> Pool | None:
    from emp_orch.control.host import generation
    from emp_orch.errors import EmpError
    from emp_orch.fleet.model.fleet import PoolName
    from emp_orch.layout import Layout

    try:
        kept = generation.kept(Layout(directory))
    except EmpError:
        return None
    return None if kept is None else kept.fleet.pools.get(PoolName(word))


def scale_pool(directory: Path, pool: str, size: int | None, *, reason: str, as_json: bool) -> None:
    """Hold `pool` at `size`; None: let it follow its queue. Raises UsageError."""
    order = asyncio.run(_scale(directory, pool, size, reason))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json({"pool": pool, "size": size, "reason": order.reason if order else "", "stood": order is not None})
    elif size is not None and order is not None:
        click.echo(one_line(f"{pool} is held at {size}: {order.words}; {order.lifted_by} ends it"))
        if _join_by_themselves(directory, pool):
            click.echo(f"  emp starts and stops none of its boxes: who does sees the number by `emp pools {pool}`")
    elif order is not None:
        click.echo(one_line(f"{pool} follows its queue again; it was held at {order.size}: {order.words}"))
    else:
        click.echo(one_line(f"{pool} follows its queue; nobody ordered a size"))


def _join_by_themselves(directory: Path, pool: str) -> bool:
    from emp_orch.fleet.model.pools import JOIN

    known = _known(directory, pool)
    return known is not None and known.provider == JOIN


async def _scale(directory: Path, pool: str, size: int | None, reason: str) -> Override | None:
    from emp_orch.control.host.identity import person

    async with orders_of(directory) as (orders, _, _):
        return await orders.scale(pool, size, reason=reason, by=person())
