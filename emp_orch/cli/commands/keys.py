"""`emp keys rotate`: the key that the fleet's orders are sealed by, drawn anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click


@click.group()
def keys() -> None:
    """The key of this fleet, by which machines know its orders (docs/security.md)."""


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.pass_obj
def rotate(directory: Path, as_json: bool) -> None:
    """Draw the fleet's key anew. Whatever was sealed by the old one is void; machines get new keys while they work.

    After somebody may have read .emp/control, and where machines refuse orders because their epoch is too old.

    Exit: 0 done, 1 it did not work, 2 nothing was applied here, 3 Redis out of reach.
    """
    from emp_orch.control.upkeep.rotation import rotate as draw_anew
    from emp_orch.layout import Layout

    done = asyncio.run(draw_anew(Layout(directory)))
    if as_json:
        import msgspec

        from emp_orch.cli.jobs.access import print_json

        print_json(msgspec.to_builtins(done))
        return
    click.echo(
        f"the fleet has another key, {done.key}; sealed again: generations {done.generations}, orders {done.overrides}"
    )
    click.echo(f"the reconciler gives each machine its own ({done.machines}); jobs run on")
