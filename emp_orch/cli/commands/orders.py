"""`emp pause`, `emp resume`, `emp drain`: what people order beside emp.yaml, as the API takes it too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.output.complete import machine_ids, names, programs
from emp_orch.cli.output.options import Duration
from emp_orch.errors import WaitTimeout
from emp_orch.plaintext import many_lines, one_line

if TYPE_CHECKING:
    from emp_orch.control.apply.draining import Draining
    from emp_orch.fleet.model.overrides import Override
    from emp_orch.settings import Settings
    from emp_orch.store.fleet.orders import Orders, Resumed
    from emp_orch.store.redis.client import Client

_machine = click.argument("machine", required=False, shell_complete=names)
_program = click.argument("program", required=False, shell_complete=programs)
_reason = click.option("--reason", default="", help="Why; shown wherever it matters, with who said so.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
# A job may take its time: longer than most drain_timeouts.
DRAIN = "15m"
SHOWN = 4


@click.command()
@_machine
@_program
@_reason
@_json
@click.pass_obj
def pause(directory: Path, machine: str | None, program: str | None, reason: str, as_json: bool) -> None:
    """Let the reconciler start, stop and change nothing: in the whole fleet, on MACHINE, or of PROGRAM on it.

    It goes on looking, and shows what differs. supervisord still restarts what ends by itself. `emp resume` ends it.

    Exit: 0 done, 2 no such machine or program, 3 Redis out of reach.
    """
    order = asyncio.run(_pause(directory, machine, program, reason))
    if as_json:
        _print_order(order)
    else:
        back = " ".join(filter(None, ("emp resume", order.machine_id, order.program)))
        whole = order.machine_id is None
        click.echo(one_line(f"{'the reconciler' if whole else order.scope} is paused: {order.words}; {back} ends it"))


@click.command()
@_machine
@_program
@_json
@click.pass_obj
def resume(directory: Path, machine: str | None, program: str | None, as_json: bool) -> None:
    """Lift a pause: of the whole fleet, of MACHINE, or of PROGRAM on it. For the fleet it also closes an open breaker;
    for MACHINE it also ends its drain.

    Exit: 0 done, also when nothing stood; 2 no such machine or program, 3 Redis out of reach.
    """
    done = asyncio.run(_resume(directory, machine, program))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json({"lifted": done.lifted, "closes_breaker": done.closes_breaker, "left": done.left})
    else:
        click.echo(many_lines(_resumed(done, done.scope.text if machine else "the fleet")))


@click.command()
@click.argument("machine", shell_complete=machine_ids)
@_reason
@click.option("--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until its workers are gone.")
@click.option("--timeout", type=Duration(), default=DRAIN, show_default=True, help="How long to wait.")
@_json
@click.pass_obj
def drain(directory: Path, machine: str, reason: str, waits: bool, timeout: float, as_json: bool) -> None:
    """Let the workers of MACHINE finish their jobs and end; all else on it runs on.

    `emp resume MACHINE` brings them back.
    A job that takes longer than the machine's drain_timeout goes back into the queue, to its old place.

    Exit: 0 done, 2 no such machine, 3 Redis out of reach, 4 workers were still there after --timeout; the drain stands.
    """
    order = asyncio.run(_drain(directory, machine, reason, timeout if waits else None))
    if as_json:
        _print_order(order, drained=waits)
    elif waits:
        click.echo(
            one_line(f"{order.scope} is drained: {order.words}; emp resume {order.scope} brings its workers back")
        )
    else:
        click.echo(one_line(f"{order.scope} is being drained: {order.words}; emp status shows how far"))


def _print_order(order: Override, **more: bool) -> None:
    from emp_orch.cli.jobs.access import print_json

    told = {"scope": order.scope, "kind": order.kind, "reason": order.reason, "by": order.by, "at": order.at}
    print_json({**told, **more})


def _resumed(done: Resumed, scope: str) -> str:
    words = {"pause": "no longer paused", "drain": "no longer drained", "scale": "no longer held at a size"}
    lines = [f"{scope} is {words.get(key.partition(':')[0], 'free of ' + key)}" for key in done.lifted]
    lines += ["the breaker is being closed: what failed so far counts no more"] if done.closes_breaker else []
    lines = lines or [f"nothing stood on {scope}"]
    for o in done.left[:SHOWN]:
        lines.append(f"still {o.what}: {o.scope}: {o.words}")
    return "\n".join([*lines, *([f"… and {len(done.left) - SHOWN} more"] if len(done.left) > SHOWN else [])])


@asynccontextmanager
async def orders_of(directory: Path) -> AsyncIterator[tuple[Orders, Settings, Client]]:
    """The fleet's, and its Redis. Raises Unreachable."""
    from emp_orch import settings as settings_files
    from emp_orch.layout import Layout
    from emp_orch.runtimes.keys.signing import SigningKey
    from emp_orch.store.fleet.orders import Orders
    from emp_orch.store.redis import client
    from emp_orch.store.redis.keys import Keys

    settings = settings_files.load(Layout(directory))
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        try:
            seal = SigningKey(Layout(directory), settings.fleet).control()
            yield Orders(r, Keys(settings.prefix), settings.fleet, seal), settings, r
        except client.TRANSIENT as e:
            raise client.unreachable(settings.redis_url, e) from e


async def _pause(directory: Path, machine: str | None, program: str | None, reason: str) -> Override:
    from emp_orch.control.host.identity import person
    from emp_orch.store.fleet.orders import Scope

    async with orders_of(directory) as (orders, _, _):
        return await orders.pause(Scope(machine_id=machine, program=program), reason=reason, by=person())


async def _resume(directory: Path, machine: str | None, program: str | None) -> Resumed:
    from emp_orch.control.host.identity import person
    from emp_orch.store.fleet.orders import Scope

    async with orders_of(directory) as (orders, _, _):
        return await orders.resume(Scope(machine_id=machine, program=program), by=person())


async def _drain(directory: Path, machine: str, reason: str, within_s: float | None) -> Override:
    from emp_orch.cli.output.progress import Progress
    from emp_orch.control.apply.draining import Drain
    from emp_orch.control.host.identity import person
    from emp_orch.store.redis.keys import Keys

    last = ""
    async with orders_of(directory) as (orders, settings, r):
        order = await orders.drain(machine, reason=reason, by=person())
        machine = order.scope
        if within_s is None:
            return order
        with Progress() as progress:

            def tell(seen: Draining) -> None:
                nonlocal last
                last = progress_line(machine, seen)
                progress.stage(last)

            try:
                async with asyncio.timeout(within_s):
                    await Drain(r, Keys(settings.prefix), settings.fleet, machine).wait(tell)
            except TimeoutError:
                raise WaitTimeout(
                    f"not drained after {within_s:g} s: {last}",
                    hint=f"the drain stands, and goes on; emp resume {machine} ends it, emp status shows how far",
                ) from None
            except asyncio.CancelledError:
                progress.line(f"no longer waiting; the drain stands: emp resume {machine} ends it")
                raise
    return order


def progress_line(machine: str, seen: Draining) -> str:
    """Who is still there, at what, and what the drain waits for."""
    if not seen.left:
        return f"{machine}: no worker is left"
    names = [f"{w.worker_id} {w.status}" + (f" with job {w.job_id}" if w.job_id else "") for w in seen.left]
    more = f" (+{len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    waits = f"; waits: {seen.waits}" if seen.waits else ""
    return one_line(f"{machine}: {', '.join(names[:SHOWN])}{more}{waits}")
