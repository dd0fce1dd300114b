"""One way from a proposal to a fleet that is so: look, show, ask, bring up, publish, wait, say what runs where."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from emp_orch.cli.output.progress import Progress
from emp_orch.errors import Exit, UsageError, WaitTimeout
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.control.apply.publish import Session
    from emp_orch.control.checks.proposed import Preview, Proposal
    from emp_orch.fleet.drift.table import Drift
    from emp_orch.fleet.model.fleet import Fleet
    from emp_orch.fleet.model.observed import Observed
    from emp_orch.layout import Layout
    from emp_orch.store.fleet.generations import Generation
    from emp_orch.store.fleet.status import FleetStatus

# More than these are counted.
POOLS_SAID = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that everything which publishes has. `timeout` in seconds. The last three are `emp apply`'s: nothing
    else brings a fleet to a Redis that it was not on before, or looks for other images.
    """

    yes: bool
    prune: bool
    allow_empty: bool
    timeout: float
    no_wait: bool
    as_json: bool
    allow_eviction: bool = True
    take_over: bool = False
    pull: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """`unchanged`: nothing had to be done, the generation is the one that was in force. `away`: external machines that
    have yet to join, as far as that was waited for."""

    generation: Generation
    unchanged: bool
    away: tuple[str, ...] = ()


class Declined(click.Abort):
    """The person said no."""


# Called with what a preview found, before anything is touched; raises to leave it so.
Agree = Callable[["Preview"], Awaitable[None]]


async def carry_out(
    layout: Layout, proposal: Proposal, asked: Asked, progress: Progress, agree: Agree | None = None
) -> Published:
    """Make `proposal` so, from the look to the wait. Without `agree` the plan is shown and the person asked."""
    published = await put_in_force(layout, proposal, asked, progress, agree)
    return published if asked.no_wait else await waited_for(layout, published, asked.timeout, progress)


async def waited_for(layout: Layout, published: Published, within_s: float, progress: Progress) -> Published:
    """`published` once it is so, as far as it can be without a person; a Ctrl-C says that it goes on."""
    try:
        away = await wait(layout, published.generation, within_s, progress)
    except asyncio.CancelledError:
        progress.line("no longer waiting; the reconciler goes on: emp status shows how far, emp down stops it")
        raise
    return replace(published, away=away)


async def put_in_force(
    layout: Layout, proposal: Proposal, asked: Asked, progress: Progress, agree: Agree | None = None
) -> Published:
    """All but the wait. Raises Declined when the person says no."""
    from emp_orch.control.apply import publish as steps
    from emp_orch.control.apply.preview import preview
    from emp_orch.control.checks.redis_fitness import refuse_unfit
    from emp_orch.host.ownership import refuse_to_apply
    from emp_orch.store.redis import client

    refuse_to_apply(layout.root)
    if not proposal.settings.embedded:
        await refuse_unfit(
            proposal.settings, proposal.fleet, allow_eviction=asked.allow_eviction, take_over=asked.take_over
        )
    proposal = structs.replace(proposal, pull=asked.pull)
    seen = await preview(layout, proposal, prune=asked.prune, allow_empty=asked.allow_empty, tell=progress.stage)
    if agree is not None:
        await agree(seen)
    elif not seen.nothing:
        show(proposal, seen, progress)
        confirm(asked)
    progress.stage("control plane")
    proposal = await steps.bring_up(layout, proposal, seen, progress.stage, progress.line)
    async with client.connected(proposal.settings.redis_url, owner=proposal.settings.redis_owner) as r:
        if why := await steps.shared_login(proposal.settings, r):
            progress.line(why)
        session = steps.Session(layout, proposal.settings, r)
        generation = await session.current() if seen.same else None
        if generation is None:
            generation = await session.publish(proposal, seen, prune=asked.prune, allow_empty=asked.allow_empty)
    return Published(generation=generation, unchanged=seen.nothing)


def show(proposal: Proposal, seen: Preview, progress: Progress) -> None:
    """The plan, for a person to read before saying yes."""
    from emp_orch.control.apply.plan_text import plan_lines
    from emp_orch.manifest import notes, notes_of_shell
    from emp_orch.manifest.checks.devices import notes_here

    head, *rest = plan_lines(proposal, seen)
    progress.line(head, bold=True)
    known = {key.removeprefix("env:") for key in proposal.secrets}
    of_shell = notes_of_shell(proposal.fleet, os.environ, known=known)
    for line in (*rest, *notes(proposal.fleet), *of_shell, *map(str, notes_here(proposal.fleet))):
        progress.line(line)


def confirm(asked: Asked) -> None:
    """Go on only if the person agrees. Raises Declined, click.Abort at Ctrl-C, UsageError when nobody can be asked."""
    if asked.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask: stdin is not a terminal", hint="say yes beforehand with -y")
    with _interruptible():
        if not click.confirm("apply this?", err=True):
            raise Declined


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a question at once: asyncio's own handler would only note it down until the answer has come."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def wait(layout: Layout, generation: Generation, within_s: float, progress: Progress) -> tuple[str, ...]:
    """Until the fleet is as `generation` says; the external machines that have yet to join.

    Raises WaitTimeout with what is still missing.
    """
    from emp_orch.control.apply.publish import Session
    from emp_orch.settings import load
    from emp_orch.store.redis import client

    settings = load(layout)  # those in force: of two applies at once only one made the password
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        return await _watch(layout, Session(layout, settings, r), generation, within_s, progress)


async def _watch(
    layout: Layout, session: Session, generation: Generation, within_s: float, progress: Progress
) -> tuple[str, ...]:
    from emp_orch.cli.output.exit_text import Ended, set_off
    from emp_orch.fleet.drift.exits import words_of

    last: tuple[Drift, ...] = ()

    ended = Ended(generation, os.environ)
    words: dict[str, tuple[str, ...]] = {}

    def look(drifts: tuple[Drift, ...], observed: Observed, status: FleetStatus | None) -> None:
        nonlocal last, words
        last = drifts
        reports = {i: m.report for i, m in observed.machines.items()}
        words = {d.key: words_of(reports.get(d.machine_id), d.program) for d in drifts}
        for line in ended.news(drifts, observed):
            progress.line(line)
        progress.stage(_say(drifts, observed, status))

    try:
        async with asyncio.timeout(within_s):
            return await session.wait_converged(generation, look)
    except TimeoutError:
        told = [
            line
            for d in last
            for line in (
                f"{d.kind}: {d.subject}: {d.desired} → {d.observed} ({d.cause})",
                *set_off(words.get(d.key, ()), "  "),
            )
        ]
        missing = "\n  ".join(told)
        raise WaitTimeout(
            f"not ready after {within_s:g} s:\n  {missing}",
            hint=await _who_acts(layout),
        ) from None


async def _who_acts(layout: Layout) -> str:
    """What to expect after a wait that was in vain."""
    from emp_orch.cli.output.holds import who_holds
    from emp_orch.control.status.inspect import difference
    from emp_orch.fleet.policy.leader_silence import SILENT_MIN_MS

    found = await difference(layout)
    if found.status_age_ms is None or found.status_age_ms > SILENT_MIN_MS:
        return "nobody carries this out: no reconciler is at work; see `emp logs reconcile` and `emp doctor`"
    if holds := who_holds(found):
        return one_line(holds)
    return "the reconciler goes on trying; see `emp diff`, `emp doctor` and `emp logs`"


def _say(drifts: tuple[Drift, ...], observed: Observed, status: FleetStatus | None) -> str:
    """The state of the wait in one line: what is up, what is still missing, and what it waits for."""
    if not drifts:
        return "in sync"
    first = drifts[0]
    seen = observed.machines.get(first.machine_id)
    running = sum(p.state == "RUNNING" for p in seen.report.programs.values()) if seen else 0
    count = f", {running} programs running" if seen else ""
    more = f" (+{len(drifts) - 1} more)" if len(drifts) > 1 else ""
    waits = _waits(drifts, status)
    return f"{first.machine_id}{count}: {first.subject} is {first.observed}, wants {first.desired}{more}{waits}"


def _waits(drifts: tuple[Drift, ...], status: FleetStatus | None) -> str:
    """What holds the first of them that something holds; empty when all is under way."""
    from emp_orch.cli.output.holds import waits
    from emp_orch.fleet.policy.holds import Hold

    keys = {d.key for d in drifts}
    items = [i for i in status.drift if i.drift.key in keys and i.hold] if status else []
    held = next((waits(i) for i in items if i.hold is not Hold.UNDER_WAY), "")
    return f"; waits: {one_line(held)}" if held else ""


def outcome(proposal: Proposal, published: Published, *, waited: bool) -> dict[str, Any]:
    """What came of it, as `--json` says it."""
    settings = proposal.settings
    return {
        "fleet": settings.fleet,
        "generation": published.generation.number,
        "changed": not published.unchanged,
        "converged": waited and not published.away,
        "api": settings.api.url,
        "monitor": settings.monitor.url,
        "machines": [m.id for m in proposal.fleet.machines],
        "yet_to_join": list(published.away),
    }


def headline(proposal: Proposal, published: Published, *, waited: bool) -> str:
    """What came of it, in one line."""
    name, number = proposal.settings.fleet, published.generation.number
    if published.away:
        return f"{name} waits for people: {sizes(proposal, published)}"
    if published.unchanged:
        return f"nothing to do: generation {number} of {name} is what runs"
    return f"{name} {'is ready' if waited else 'was published'}: {sizes(proposal, published)}"


def leave(published: Published) -> None:
    """Exit 1 when machines have yet to join: `emp diff` calls that a difference, too."""
    if published.away:
        sys.exit(Exit.FAILED)


def sizes(proposal: Proposal, published: Published) -> str:
    """Number and size of what is in force, and what has yet to join."""
    machines = proposal.fleet.machines
    gpus = sum(m.num_gpus for m in machines)
    machines_word = "machine" if len(machines) == 1 else "machines"
    slots = "GPU slot" if gpus == 1 else "GPU slots"
    yet = (
        f"; yet to join: {', '.join(published.away)} (`emp machine join ID` prints the line)" if published.away else ""
    )
    number = published.generation.number
    named = f", {len(machines)} {machines_word}, {gpus} {slots}" if machines or not proposal.fleet.pools else ""
    return f"generation {number}{named}{_pools(proposal.fleet)}{yet}"


def _pools(fleet: Fleet) -> str:
    """`, pool renders of 0..40 boxes`."""
    from emp_orch.fleet.plan.pool_changes import size_of

    if len(fleet.pools) > POOLS_SAID:
        return f", {len(fleet.pools)} pools"
    return "".join(f", pool {name} of {size_of(pool)} boxes" for name, pool in fleet.pools.items())


def where(layout: Layout, proposal: Proposal) -> None:
    """What runs where, and what to do next."""
    settings = proposal.settings
    click.echo(f"  page  {settings.monitor.url}")
    click.echo(f"  API   {settings.api.url}/api/monitor/state")
    click.echo(f"  logs  {layout.logs}")
    submit = "emp submit simulation --wait · " if "simulation" in proposal.fleet.services else ""
    click.echo(f"  next  emp status · {submit}emp logs -f · emp diff · emp down")
