"""`emp apply` and `emp down`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.progress import Progress
from emp_orch.errors import UsageError, WaitTimeout

if TYPE_CHECKING:
    from emp_orch.control.apply import Session
    from emp_orch.control.preview import Preview
    from emp_orch.control.proposal import Proposal
    from emp_orch.fleet.drift import Drift
    from emp_orch.fleet.observed import Observed
    from emp_orch.fleet.plan import MachineChange
    from emp_orch.layout import Layout
    from emp_orch.store.generations import Generation


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Remove machines that emp.yaml no longer names.")
@click.option("--allow-empty", is_flag=True, help="Let --prune remove all machines at once.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds to wait until all is ready.")
@click.option("--no-wait", is_flag=True, help="Publish and return; do not wait until it is so.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def apply(
    directory: Path,
    file: Path | None,
    yes: bool,
    prune: bool,
    allow_empty: bool,
    timeout: float,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make what runs match FILE [emp.yaml]: show what would change, ask, do it, wait until it is so.

    Exit: 0 done, 1 it did not work, 2 bad emp.yaml, 3 Redis out of reach, 4 not ready in time.
    """
    path = file if file is not None and file.is_absolute() else directory / (file or "emp.yaml")
    asked = _Asked(yes=yes, prune=prune, allow_empty=allow_empty, timeout=timeout, no_wait=no_wait, as_json=as_json)
    asyncio.run(_apply(path, asked))


class _Asked:
    """The options of one apply."""

    def __init__(
        self, *, yes: bool, prune: bool, allow_empty: bool, timeout: float, no_wait: bool, as_json: bool
    ) -> None:
        self.yes = yes
        self.prune = prune
        self.allow_empty = allow_empty
        self.timeout = timeout
        self.no_wait = no_wait
        self.as_json = as_json


async def _apply(path: Path, asked: _Asked) -> None:
    from emp_orch.control import apply as steps
    from emp_orch.control.preview import preview
    from emp_orch.control.proposal import read_proposal
    from emp_orch.store import connect

    layout, proposal = read_proposal(path, os.environ)
    with Progress() as progress:
        if not proposal.settings.embedded:
            async with connect.connected(proposal.settings.redis_url):
                pass
        seen = await preview(layout, proposal, prune=asked.prune, allow_empty=asked.allow_empty)
        if not seen.nothing:
            _show(proposal, seen, progress)
            _confirm(asked)
        progress.stage("control plane")
        await steps.bring_up(layout, proposal, seen)
        async with connect.connected(proposal.settings.redis_url) as r:
            session = steps.Session(layout, proposal.settings, r)
            generation = await session.current() if seen.same else None
            if generation is None:
                generation = await session.publish(proposal, seen, prune=asked.prune, allow_empty=asked.allow_empty)
            if not asked.no_wait:
                await _wait(layout, session, generation, asked.timeout, progress)
    _report(
        layout, proposal, generation.number, unchanged=seen.nothing, waited=not asked.no_wait, as_json=asked.as_json
    )


async def _who_acts(layout: Layout) -> str:
    """What to expect after a wait that was in vain."""
    from emp_orch.cli.diff import SILENT_MS
    from emp_orch.control.inspect import difference

    found = await difference(layout)
    if found.paused:
        return f"the reconciler is paused: {found.paused}"
    if found.status_age_ms is None or found.status_age_ms > SILENT_MS:
        return "nobody carries this out: no reconciler is at work; see `emp logs reconcile` and `emp doctor`"
    return "the reconciler goes on trying; see `emp diff`, `emp doctor` and `emp logs`"


async def _wait(layout: Layout, session: Session, generation: Generation, within_s: float, progress: Progress) -> None:
    """Show the way to convergence; raise WaitTimeout with what is still missing."""
    last: tuple[Drift, ...] = ()

    def look(drifts: tuple[Drift, ...], observed: Observed) -> None:
        nonlocal last
        last = drifts
        progress.stage(_say(drifts, observed))

    try:
        async with asyncio.timeout(within_s):
            await session.wait_converged(generation, look)
    except asyncio.CancelledError:
        progress.line("no longer waiting; the reconciler goes on: emp status shows how far, emp down stops it")
        raise
    except TimeoutError:
        missing = "\n  ".join(f"{d.kind}: {d.subject} is {d.observed}, not {d.desired} ({d.cause})" for d in last)
        raise WaitTimeout(
            f"not ready after {within_s:g} s:\n  {missing}",
            hint=await _who_acts(layout),
        ) from None


def _say(drifts: tuple[Drift, ...], observed: Observed) -> str:
    """The state of the wait in one line: what is up, what is still missing."""
    if not drifts:
        return "in sync"
    first = drifts[0]
    seen = observed.machines.get(first.machine_id)
    running = sum(p.state == "RUNNING" for p in seen.report.programs.values()) if seen else 0
    count = f", {running} programs running" if seen else ""
    more = f" (+{len(drifts) - 1} more)" if len(drifts) > 1 else ""
    return f"{first.machine_id}{count}: {first.subject} is {first.observed}, wants {first.desired}{more}"


_SIGN = {"start": "+", "in place": "~", "restart": "↻", "remove": "-"}


def _show(proposal: Proposal, seen: Preview, progress: Progress) -> None:
    """The plan, for a person to read before saying yes."""
    fleet = proposal.fleet
    head = f"fleet {fleet.name}: generation {seen.number} → {seen.number + (0 if seen.same else 1)}"
    progress.line(click.style(head, bold=True))
    if not seen.plane_runs:
        embedded = "Redis, " if proposal.settings.embedded else ""
        progress.line(f"  + control plane  (start): {embedded}API, monitor, reconciler, event log")
    elif seen.settings_change:
        progress.line("  ↻ control plane  (restart): its settings change; machines run on")
    for change in seen.changes:
        for line in _change_lines(change):
            progress.line(line)
    for ref in seen.rotated:
        progress.line(f"  ~ secret {ref} has another value: programs get it when they start again (emp restart)")
    if not seen.changes and not seen.rotated and seen.plane_runs:
        progress.line("  nothing changes on any machine")


def _change_lines(change: MachineChange) -> list[str]:
    where = f"  [{change.origin}]" if change.origin else ""
    lines = [f"  {_SIGN[change.effect]} {change.machine_id}  ({change.effect}): {change.why}{where}"]
    for sign, names in (("+", change.added), ("-", change.removed), ("↻", change.changed)):
        if names:
            lines.append(f"      {sign} {', '.join(names)}")
    if change.kept:
        lines.append(f"      = {len(change.kept)} programs run on untouched")
    return lines


def _confirm(asked: _Asked) -> None:
    if asked.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask: stdin is not a terminal", hint="say yes beforehand with -y")
    click.confirm("apply this?", abort=True, err=True)


def _report(layout: Layout, proposal: Proposal, number: int, *, unchanged: bool, waited: bool, as_json: bool) -> None:
    """What runs where, and what to do next."""
    settings = proposal.settings
    machines = proposal.fleet.machines
    gpus = sum(m.num_gpus for m in machines)
    if as_json:
        import json

        outcome = {
            "fleet": settings.fleet,
            "generation": number,
            "changed": not unchanged,
            "converged": waited,
            "api": settings.api.url,
            "monitor": settings.monitor.url,
            "machines": [m.id for m in machines],
        }
        click.echo(json.dumps(outcome))
        return
    state = "is ready" if waited else "was published"
    if unchanged:
        click.echo(f"nothing to do: generation {number} of {settings.fleet} is what runs")
    else:
        machines_word = "machine" if len(machines) == 1 else "machines"
        slots = "GPU slot" if gpus == 1 else "GPU slots"
        click.echo(f"{settings.fleet} {state}: generation {number}, {len(machines)} {machines_word}, {gpus} {slots}")
    click.echo(f"  page  {settings.monitor.url}")
    click.echo(f"  API   {settings.api.url}/api/monitor/state")
    click.echo(f"  logs  {layout.logs}")
    submit = "emp submit simulation --wait · " if "simulation" in proposal.fleet.services else ""
    click.echo(f"  next  emp status · {submit}emp logs -f · emp diff · emp down")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def down(directory: Path, as_json: bool) -> None:
    """Stop this folder's fleet: its machines, then its control plane, and nothing else.

    Data stays: the next `emp apply` goes on with the same generation and jobs.
    """
    from emp_orch.control.down import bring_down
    from emp_orch.layout import Layout

    layout = Layout(directory)
    if not layout.control.is_dir():
        raise UsageError(
            f"no fleet was applied in {layout.root}", hint="run `emp apply` here, or name its folder: emp -C DIR down"
        )
    with Progress() as progress:
        stopped = asyncio.run(bring_down(layout, progress.stage))
    if as_json:
        import json

        click.echo(json.dumps({"stopped": stopped}))
    else:
        names = ", ".join(stopped) or "no machine ran"
        click.echo(f"the fleet is down ({names}); its data stays in {layout.state}")
