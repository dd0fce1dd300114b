"""`emp journal`: what differed, what was decided and done, what came of it. `--replay` decides the rounds again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.complete import names
from emp_orch.errors import EmpError, UsageError
from emp_orch.plaintext import shown_json

if TYPE_CHECKING:
    from emp_orch.store.fleet.events import Event

MAX_LIMIT = 20_000
ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    since: str
    machine_id: str
    types: tuple[str, ...]
    kinds: tuple[str, ...]
    limit: int
    follow: bool
    as_json: bool


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Keep printing what comes, until Ctrl-C.")
@click.option("-n", "--limit", type=click.IntRange(1, MAX_LIMIT), help="How many [50; with --replay: 20 rounds].")
@click.option("--since", default="", metavar="AGE", help="Only the last 90s, 30m, 1h, 2d; or since a time.")
@click.option("--machine", default="", shell_complete=names, help="Only what is about this machine.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type; may be given several times.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only about this kind of drift; may be repeated.")
@click.option("--replay", "again", is_flag=True, help="Decide the recorded rounds again, and compare.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list; with -f one JSON object a line.")
@click.pass_obj
def journal(
    directory: Path,
    follow: bool,
    limit: int | None,
    since: str,
    machine: str,
    types: tuple[str, ...],
    kinds: tuple[str, ...],
    again: bool,
    as_json: bool,
) -> None:
    """Show what the reconciler saw, decided and did, newest last. The last 20,000 entries are kept.

    --replay runs the recorded rounds through the deciding part again: the same inputs give the same plan.

    Exit: 0 done, with --replay: all the same; 1 with --replay: one differs, or none can be read.
    """
    if again:
        if follow or since or machine or types or kinds:
            raise UsageError("--replay takes -n and --json only", hint="rounds are of the whole fleet")
        sys.exit(0 if asyncio.run(_replay(directory, limit or ROUNDS, as_json)) else 1)
    if machine:
        from emp_orch.cli.output.names import lasting

        machine = lasting(directory, machine)
    asked = _Asked(
        since=since,
        machine_id=machine,
        types=types,
        kinds=kinds,
        limit=limit or 50,
        follow=follow,
        as_json=as_json,
    )
    try:
        asyncio.run(_journal(directory, asked))
    except KeyboardInterrupt:
        return


async def _journal(directory: Path, asked: _Asked) -> None:
    from emp_orch.control.apply.earlier_generations import reading
    from emp_orch.layout import Layout
    from emp_orch.store.fleet import journal_reads as reads
    from emp_orch.store.redis.client import TRANSIENT, time_ms, unreachable
    from emp_orch.store.redis.keys import Keys

    async with reading(Layout(directory)) as (settings, r):
        keys, fleet = Keys(settings.prefix), settings.fleet
        try:
            fits = reads.wanted(
                await time_ms(r),
                since=asked.since,
                machine_id=asked.machine_id,
                types=asked.types,
                kinds=asked.kinds,
            )
            last = await reads.last_id(r, keys, fleet)
            # What comes between the two reads is followed, not shown twice.
            page = await reads.page(r, keys, fleet, fits, asked.limit, upto=last)
            if not asked.follow:
                return _show_all(page.entries, asked)
            _show(page.entries, asked)
            async for batch in reads.follow(r, keys, fleet, fits, after=last):
                _show(batch, asked)
        except TRANSIENT as e:
            raise unreachable(settings.redis_url, e) from e


def _show_all(entries: tuple[Event, ...], asked: _Asked) -> None:
    if asked.as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json([as_document(e) for e in entries])
    elif not entries:
        click.echo("the journal has nothing of that kind" if _filters(asked) else "the journal is empty", err=True)
    else:
        _show(entries, asked)


def _filters(asked: _Asked) -> bool:
    return bool(asked.since or asked.machine_id or asked.types or asked.kinds)


def _show(entries: Iterable[Event], asked: _Asked) -> None:
    import msgspec

    from emp_orch.cli.output.journal_text import line

    for entry in entries:
        text = shown_json(msgspec.json.encode(as_document(entry)).decode()) if asked.as_json else line(entry)
        click.echo(text)


def as_document(entry: Event) -> dict[str, Any]:
    """As the API has it."""
    from emp_orch.web.times import rfc3339

    return {"id": entry.id, "at": rfc3339(entry.at_ms), "type": entry.type, "data": entry.data}


async def _replay(directory: Path, limit: int, as_json: bool) -> bool:
    """Whether all rounds that can be read come to the same again, and one can."""
    from emp_orch.cli.output.replay_text import lines, summary
    from emp_orch.control.apply.earlier_generations import reading
    from emp_orch.control.status.replay import replayed
    from emp_orch.layout import Layout
    from emp_orch.store.redis.client import TRANSIENT, unreachable
    from emp_orch.store.redis.keys import Keys

    async with reading(Layout(directory)) as (settings, r):
        try:
            found = [v async for v in replayed(r, Keys(settings.prefix), settings.fleet, limit)]
        except TRANSIENT as e:
            raise unreachable(settings.redis_url, e) from e
    if not found:
        raise EmpError("no round is recorded", hint="the reconciler records those in which it acts")
    verdicts = list(reversed(found))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json(verdicts)
    else:
        for verdict in verdicts:
            click.echo("\n".join(lines(verdict)))
        click.echo(summary(verdicts), err=True)
    read = [v for v in verdicts if v.same is not None]
    return bool(read) and all(v.same for v in read)
