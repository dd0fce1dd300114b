"""`emp boot`: let systemd bring the fleet up at boot, and down in order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.errors import Exit

if TYPE_CHECKING:
    from emp_orch.control.apply.boot import Boot, Systemd
    from emp_orch.layout import Layout

_WHICH = click.option(
    "--system/--user",
    "system",
    default=None,
    help="A unit of the system, or of your own manager.  [default: --system for root, else --user]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")


@click.group()
def boot() -> None:
    """Let systemd bring this folder's fleet up at boot (`emp start`), and down in order when the host goes down."""


@boot.command()
@_WHICH
@click.option("--print", "only_print", is_flag=True, help="Print the unit; write nothing.")
@_JSON
@click.pass_obj
def install(directory: Path, system: bool | None, only_print: bool, as_json: bool) -> None:
    """Write and enable the unit. A fleet that runs goes on, and is ended in order when the host goes down.

    Again after an upgrade or a move: the unit names the folder, and the Python that emp runs on.

    Exit: 0 done, 1 there is no systemd, or it refused, 2 nothing was applied here.
    """
    from emp_orch.control.plane.container_plane import plane_of

    manager = _manager(directory, system)
    if only_print:
        click.echo(manager.text(), nl=False)
        return
    found = manager.install(start=plane_of(_layout(directory)).identity() is not None)
    _tell(found, as_json)


@boot.command()
@_WHICH
@_JSON
@click.pass_obj
def remove(directory: Path, system: bool | None, as_json: bool) -> None:
    """Take the unit away. A fleet that runs goes on; `emp down` ends it.

    Exit: 0 done, or there was none, 1 there is no systemd, or it refused, 2 nothing was applied here.
    """
    _tell(_manager(directory, system).remove(), as_json)


@boot.command()
@_WHICH
@_JSON
@click.pass_context
def status(ctx: click.Context, system: bool | None, as_json: bool) -> None:
    """Say whether the fleet comes up at boot.

    Exit: 0 it does, 1 it does not, 2 nothing was applied here.
    """
    found = _manager(ctx.obj, system).look()
    _tell(found, as_json)
    if not found.at_boot:
        ctx.exit(Exit.FAILED)


def _layout(directory: Path) -> Layout:
    from emp_orch.layout import Layout

    return Layout(directory)


def _manager(directory: Path, system: bool | None) -> Systemd:
    from emp_orch.control.apply.boot import Systemd
    from emp_orch.host import ownership

    ownership.refuse_copies(directory)
    return Systemd(_layout(directory), os.environ, system=os.geteuid() == 0 if system is None else system)


def _tell(found: Boot, as_json: bool) -> None:
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps({**msgspec.to_builtins(found), "at_boot": found.at_boot}))
        return
    if not found.installed:
        click.echo(f"no unit {found.path}: the fleet does not come up at boot; `emp boot install` writes one")
        return
    click.echo(
        f"{found.unit} ({found.path}): {'enabled' if found.enabled else 'not enabled'}, {found.state or 'unknown'}"
    )
    if not found.enabled:
        click.echo("it does not come up at boot: `emp boot install` enables it")
    if not found.lingers:
        click.echo(
            "your systemd starts when you log in, not at boot:"
            " `loginctl enable-linger` changes that, or `emp boot install --system` as root"
        )
    if found.outdated:
        click.echo("the unit is not what this emp would write now: `emp boot install` writes it anew")
