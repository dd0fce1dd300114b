"""`emp pools`: how many members each pool has, how many it should have, and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.errors import UsageError
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.control.status.inspect import Difference
    from emp_orch.control.status.pools import PoolNow


@click.command()
@click.argument("name", metavar="[POOL]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what `GET /api/pools/NAME` says of each, as JSON.")
@click.pass_obj
def pools(directory: Path, name: str | None, as_json: bool) -> None:
    """Show the pools: members, size, jobs that wait for them, why they are as large as they are; of POOL each member.

    Exit: 0 shown, 2 there is no such pool, 3 Redis out of reach.
    """
    from emp_orch.control.status.inspect import difference
    from emp_orch.control.status.pools import pools_now
    from emp_orch.layout import Layout

    found = asyncio.run(difference(Layout(directory)))
    shown = pools_now(found)
    if name is not None:
        known = ", ".join(p.name for p in shown) or "none"
        shown = tuple(p for p in shown if p.name == name)
        if not shown:
            raise UsageError(f"this fleet has no pool {name!r}", hint=f"there are: {known}")
    if as_json:
        import json

        click.echo(json.dumps(_documents(shown, found), indent=2))
        return
    if not shown:
        click.echo("no pools: emp.yaml names none")
        return
    click.echo(pool_table(shown))
    for line in (reason for p in shown if (reason := _reason(p))):
        click.echo(line)
    if name is not None:
        click.echo(_members(name, found))


def pool_table(shown: tuple[PoolNow, ...]) -> str:
    """One line a pool."""
    from emp_orch.cli.output.text import table

    rows = [
        (
            p.name,
            p.provider,
            p.size,
            str(p.there),
            "-" if p.said is None else str(p.said.wanted),
            "-" if p.said is None else f"{p.said.waiting} wait, {p.said.running} run",
            ", ".join(f"{n} {state}" for state, n in p.members.items()) or "none",
        )
        for p in shown
    ]
    return table(("POOL", "PROVIDER", "SIZE", "THERE", "WANTED", "JOBS", "MEMBERS"), rows)


def _reason(p: PoolNow) -> str:
    if p.said is None:
        return f"  {p.name}: the reconciler has not looked yet"
    # A round that knows the order says it itself.
    order = f"ordered: {p.said.order}" if p.said.order and not p.said.why.startswith("ordered:") else ""
    said = [f"{p.said.why}{p.said.coming}", order, p.said.engine]
    words = one_line("; ".join(filter(None, said)))
    return f"  {p.name}: {words}" if words else ""


def _members(name: str, found: Difference) -> str:
    from emp_orch.cli.output.text import age, table
    from emp_orch.control.status.pools import state_of

    now_ms = found.observed.now_ms
    rows = [
        (
            m.id,
            state_of(m, found),
            "-" if not m.joined_ms else f"{age(max(0, now_ms - m.joined_ms))} ago",
            one_line(m.name) or "-",
            one_line(m.why) or "-",
        )
        for m in found.desired.members.values()
        if m.pool == name
    ]
    return "\n" + (table(("MEMBER", "STATE", "JOINED", "NAME", "WHY"), rows) if rows else "no members")


def _documents(shown: tuple[PoolNow, ...], found: Difference) -> list[dict[str, Any]]:
    """As `GET /api/pools/NAME` has each."""
    import msgspec

    from emp_orch.api.views.pool_detail import Heard, pool_detail
    from emp_orch.api.views.pools import views_of

    observed, desired = found.observed, found.desired
    heard = Heard(machines=observed.machines, now_ms=observed.now_ms, stale_after_ms=desired.stale_after_ms)
    views = views_of(desired.pools, found.pools)
    details = [pool_detail(views[p.name], desired.members.values(), heard) for p in shown]
    return [msgspec.to_builtins(detail) for detail in details]
