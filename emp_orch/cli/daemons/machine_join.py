"""`emp machine join`, `revoke` and `forget`: let a box elsewhere be a machine of the fleet, and no longer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.output.options import Duration
from emp_orch.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Fleet, Machine
    from emp_orch.layout import Layout
    from emp_orch.settings import Settings


@click.command("join", short_help="Print the line that makes a box machine ID.")
@click.argument("machine_id", metavar="ID")
@click.option("--plain", is_flag=True, help="For a box with emp, instead of one with Docker.")
@click.option(
    "--api",
    "api_url",
    metavar="URL",
    help="The API as the box reaches it [api.machine_url of emp.yaml, or where it listens].",
)
@click.option(
    "--expires", type=Duration(min=1), default="24h", show_default=True, help="How long the line may be used: 30m, 7d."
)
@click.option("--json", "as_json", is_flag=True, help="Print both lines and their parts as JSON.")
@click.pass_obj
def join(directory: Path, machine_id: str, plain: bool, api_url: str | None, expires: float, as_json: bool) -> None:
    """Print the one line to run on a box, so that it becomes the external machine ID of the fleet applied here.

    The line holds a token for this machine only. A box that has joined keeps its place after the line has expired,
    until `emp machine revoke ID`.
    """
    import time

    from emp_orch import settings as settings_files
    from emp_orch.cli.output import join_lines
    from emp_orch.layout import Layout
    from emp_orch.runtimes.keys.join_tokens import JoinTokens
    from emp_orch.web.guard import is_loopback

    layout = Layout(directory)
    settings = settings_files.load(layout)
    fleet, found = _external(layout, settings, machine_id)
    expires_s = int(time.time()) + int(expires)
    url = join_lines.checked_url(api_url or settings.api_machine_url or settings.api.url)
    token = JoinTokens(layout).issue(settings.fleet, machine_id, expires_s=expires_s)
    lines = join_lines.lines(fleet, found, url=url, token=token)
    for warning in join_lines.warnings(settings, url, is_loopback=is_loopback):
        click.echo(f"emp: {warning}", err=True)
    if as_json:
        import json

        told = {"machine_id": machine_id, "api": url, "token": token, "expires_at": expires_s}
        click.echo(json.dumps({**told, "docker": lines.docker, "plain": lines.plain}, indent=2))
    else:
        click.echo(lines.plain if plain else lines.docker)


@click.command("revoke", short_help="Shut machine ID out: its tokens and its Redis login are void.")
@click.argument("machine_id", metavar="ID")
@click.pass_obj
def revoke(directory: Path, machine_id: str) -> None:
    """Make every token void that machine ID was given, and its login at Redis. What it runs, it runs on."""
    import asyncio

    from emp_orch import settings as settings_files
    from emp_orch.layout import Layout
    from emp_orch.runtimes.keys.join_tokens import JoinTokens
    from emp_orch.store.acl import users
    from emp_orch.store.redis import client
    from emp_orch.store.redis.keys import Keys

    layout = Layout(directory)
    settings = settings_files.load(layout)
    _checked_name(machine_id)
    if pool := _pool_of(layout, settings, machine_id):
        raise UsageError(
            f"{machine_id} is {'a pool' if machine_id == pool else f'of pool {pool}'}, and no machine of emp.yaml",
            hint=f"`emp pool revoke {pool}` lets nobody new in; `emp machine forget ID` makes a member's own void",
        )
    JoinTokens(layout).revoke(machine_id)

    async def shut_out() -> None:
        async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
            await users.withdraw(r, Keys(settings.prefix), settings.fleet, machine_id)

    try:
        asyncio.run(shut_out())
    except Unreachable as e:
        raise Unreachable(
            f"the tokens of {machine_id} are void, but its login at Redis is not: {e.message}",
            hint="try again when Redis answers",
        ) from e
    click.echo(f"{machine_id} is shut out; `emp machine join {machine_id}` lets a box in again")


@click.command("forget", short_help="Forget machine ID: a member of a pool, or one that left emp.yaml.")
@click.argument("machine_id", metavar="ID")
@click.option("--force", is_flag=True, help="Also a member that holds a job: the job runs again elsewhere.")
@click.option("--timeout", type=Duration(), default="30s", show_default=True, help="How long to wait for the outcome.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def forget(directory: Path, machine_id: str, force: bool, timeout: float, as_json: bool) -> None:
    """Forget a member of a pool at once: its token, its login at Redis and its keys are void, and its reports go. Or a
    machine that emp.yaml names no more, and that is gone.

    A member that holds a job is refused without --force.
    """
    import asyncio

    from emp_orch import settings as settings_files
    from emp_orch.control.apply.asking import asked
    from emp_orch.errors import WaitTimeout
    from emp_orch.layout import Layout
    from emp_orch.store.fleet.requests import Request, Verb

    layout = Layout(directory)
    settings = settings_files.load(layout)
    _checked_name(machine_id)
    request = Request(verb=Verb.FORGET_MACHINE, machine_id=machine_id, force=force, by="cli")

    async def done() -> None:
        async with asyncio.timeout(timeout):
            await asked(layout, request)

    try:
        asyncio.run(done())
    except TimeoutError:
        raise WaitTimeout(
            f"not done within {timeout:g} s", hint="is the reconciler up? see `emp diff`, `emp logs reconcile`"
        ) from None
    pool = _pool_of(layout, settings, machine_id)
    if as_json:
        import json

        click.echo(json.dumps({"forgotten": machine_id, "pool": pool}))
        return
    click.echo(f"{machine_id} is forgotten: its token, its login and its keys are void, and its reports are gone")
    if pool:
        click.echo(
            f"a box of it that still runs may join {pool} as another member, by a line that is good: "
            f"`emp pool revoke {pool}` ends those"
        )


def _external(layout: Layout, settings: Settings, machine_id: str) -> tuple[Fleet, Machine]:
    """The fleet that was applied, and its machine. Raises UsageError when that has no such external one."""
    from emp_orch.control.host.generation import kept

    generation = kept(layout)
    machines = generation.fleet.machines if generation and generation.fleet.name == settings.fleet else ()
    found = next((m for m in machines if m.id == machine_id), None)
    if generation is not None and found is not None and found.traits.joins:
        return generation.fleet, found
    if found is not None:
        raise UsageError(
            f"machine {machine_id} has runtime {found.runtime}: emp starts it itself",
            hint="only machines with `runtime: external` join",
        )
    if pool := _pool_of(layout, settings, machine_id):
        what = "a pool" if machine_id == pool else f"a name of pool {pool}, whose boxes share one line"
        raise UsageError(f"{machine_id} is {what}", hint=f"`emp pool join {pool}` prints it")
    names = ", ".join(m.id for m in machines if m.traits.joins) or "none"
    raise UsageError(
        f"the fleet that was applied has no machine {machine_id!r}; external ones: {names}",
        hint="add it to emp.yaml with `runtime: external`, and `emp apply`",
    )


def _pool_of(layout: Layout, settings: Settings, machine_id: str) -> str:
    """The pool of the fleet that was applied which is called so, or whose members are; empty where none is."""
    from emp_orch.control.host.generation import kept

    generation = kept(layout)
    pools = generation.fleet.pools if generation and generation.fleet.name == settings.fleet else {}
    return max((pool for pool in pools if f"{machine_id}-".startswith(f"{pool}-")), key=len, default="")


def _checked_name(machine_id: str) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", machine_id):
        raise UsageError(f"{machine_id!r} is not a machine's name")
