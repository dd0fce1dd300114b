"""`emp pool join` and `revoke`: let boxes that nobody named be members of a pool, and let no more in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.output import complete
from emp_orch.cli.output.options import Duration
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import PoolName

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Fleet, Pool
    from emp_orch.layout import Layout
    from emp_orch.settings import Settings


@click.group()
def pool() -> None:
    """Let boxes join a pool, with one line for all of them."""


@pool.command("join", short_help="Print the line that makes boxes members of pool NAME.")
@click.argument("name", metavar="NAME", shell_complete=complete.pool_names)
@click.option("--plain", is_flag=True, help="Only the line for a box with emp, and no Docker.")
@click.option(
    "--api",
    "api_url",
    metavar="URL",
    help="The API as the boxes reach it [api.machine_url of emp.yaml, or where it listens].",
)
@click.option(
    "--expires",
    type=Duration(min=1),
    default="24h",
    show_default=True,
    help="How long boxes may join: 30m, 7d.",
)
@click.option("--max", "most", type=click.IntRange(min=1), help="Lets nobody new in once the pool has so many members.")
@click.option(
    "--token", "only_token", is_flag=True, help="Only the token, for whoever keeps secrets: `| kubectl create …`."
)
@click.option("--json", "as_json", is_flag=True, help="Print the lines and their parts as JSON.")
@click.pass_obj
def join(
    directory: Path,
    name: str,
    plain: bool,
    api_url: str | None,
    expires: float,
    most: int | None,
    only_token: bool,
    as_json: bool,
) -> None:
    """Print the one line to run on each box, so that it becomes a member of pool NAME; and the image and environment
    for the template of a rental service.

    Anybody who has it may join, until it expires or `emp pool revoke NAME`. A box that has joined keeps its place after
    that.
    """
    import time

    from emp_orch import settings as settings_files
    from emp_orch.cli.output import join_lines
    from emp_orch.layout import Layout
    from emp_orch.runtimes.keys.join_tokens import JoinTokens
    from emp_orch.web.guard import is_loopback

    layout = Layout(directory)
    settings = settings_files.load(layout)
    fleet, found = _applied(layout, settings, name)
    expires_s = int(time.time()) + int(expires)
    url = join_lines.checked_url(api_url or settings.api_machine_url or settings.api.url)
    token = JoinTokens(layout).pool_token(settings.fleet, name, expires_s=expires_s, most=most or 0)
    if only_token:
        click.echo(token)
        return
    lines = join_lines.pool_lines(fleet, found, url=url, token=token)
    for warning in join_lines.pool_warnings(url, is_loopback=is_loopback):
        click.echo(f"emp: {warning}", err=True)
    if as_json:
        import json

        told = {"pool": name, "api": url, "token": token, "expires_at": expires_s, "max": most}
        parts = {"docker": lines.docker, "plain": lines.plain, "image": lines.image, "environment": lines.environment}
        click.echo(json.dumps({**told, **parts}, indent=2))
    elif plain:
        click.echo(lines.plain)
    else:
        click.echo(f"# a box with Docker\n{lines.docker}\n\n# a box with emp\n{lines.plain}\n")
        click.echo(f"# the template of a rental service\nimage: {lines.image}")
        click.echo("\n".join(f"{key}={value}" for key, value in lines.environment.items()))


@pool.command("revoke", short_help="Let nobody join pool NAME with the lines printed so far.")
@click.argument("name", metavar="NAME", shell_complete=complete.pool_names)
@click.pass_obj
def revoke(directory: Path, name: str) -> None:
    """Make every token void that was printed for pool NAME, or given to its boxes to start with. Members stay."""
    from emp_orch import settings as settings_files
    from emp_orch.layout import Layout
    from emp_orch.runtimes.keys.join_tokens import JoinTokens

    layout = Layout(directory)
    settings = settings_files.load(layout)
    _applied(layout, settings, name)
    JoinTokens(layout).revoke_pool(name)
    click.echo(
        f"nobody joins {name} by an earlier line; who is a member stays one. `emp pool join {name}` prints another"
    )


def _applied(layout: Layout, settings: Settings, name: str) -> tuple[Fleet, Pool]:
    """The fleet that was applied, and its pool. Raises UsageError when it has none of that name."""
    from emp_orch.control.host.generation import kept

    generation = kept(layout)
    fleet = generation.fleet if generation and generation.fleet.name == settings.fleet else None
    found = fleet.pools.get(PoolName(name)) if fleet else None
    if fleet is not None and found is not None:
        return fleet, found
    if fleet is not None and any(m.id == name for m in fleet.machines):
        raise UsageError(f"{name} is a machine, and no pool", hint=f"`emp machine join {name}`")
    names = ", ".join(sorted(fleet.pools)) if fleet and fleet.pools else "none"
    raise UsageError(
        f"the fleet that was applied has no pool {name[:80]!r}; pools: {names}",
        hint="add it to emp.yaml under `pools:`, and `emp apply`",
    )
