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


def pool_named(directory: Path, word: str) -> Pool | None:
    """The pool of this name, if the generation last applied here has it."""
    from emp_orch.control.host import generation
    from emp_orch.errors import EmpError
    from emp_orch.fleet.model.fleet import PoolName
    from emp_orch.layout import Layout

    try:
        kept = generation.kept(Layout(directory))
    except EmpError:
        return None
    return None if kept is None else kept.fleet.pools.get(PoolName(word))


def scale_pool(directory: Path, named: Pool, size: int | None, *, reason: str, as_json: bool) -> None:
    """Hold `named` at `size`; None: let it follow its queue. Raises UsageError."""
    from emp_orch.fleet.model.pools import JOIN

    pool = named.name
    order = asyncio.run(_scale(directory, pool, size, reason))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json({"pool": pool, "size": size, "reason": order.reason if order else "", "stood": order is not None})
    elif size is not None and order is not None:
        click.echo(one_line(f"{pool} is held at {size}: {order.words}; {order.lifted_by} ends it"))
        if named.provider == JOIN:
            click.echo(f"  emp starts and stops none of its boxes: who does sees the number by `emp pools {pool}`")
    elif order is not None:
        click.echo(one_line(f"{pool} follows its queue again; it was held at {order.size}: {order.words}"))
    else:
        click.echo(one_line(f"{pool} follows its queue; nobody ordered a size"))


async def _scale(directory: Path, pool: str, size: int | None, reason: str) -> Override | None:
    from emp_orch.control.host.identity import person

    async with orders_of(directory) as (orders, _, _):
        return await orders.scale(pool, size, reason=reason, by=person())
