"""`emp explain`: one drift from its beginning: what differs, why, what was decided and tried, what one can do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from emp_orch.cli.output.complete import names
from emp_orch.errors import UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.names import Name
    from emp_orch.settings import Settings
    from emp_orch.store.drift_stories import Explained
    from emp_orch.store.redis.client import Client

# Of drifts to choose from.
OFFERED = 12


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is told: one story, or, with none to tell, what has closed lately. `now_ms` is Redis' clock."""

    explained: Explained | None
    closed: tuple[str, ...]
    now_ms: int
    line: str = ""


@click.command()
@click.argument("drift", nargs=-1, shell_complete=names, metavar="[DRIFT | MACHINE [SUBJECT]]")
@click.option("--json", "as_json", is_flag=True, help="Print the story as JSON, as the API has it.")
@click.pass_obj
def explain(directory: Path, drift: tuple[str, ...], as_json: bool) -> None:
    """Explain one drift: since when, why, the line of emp.yaml, what was tried, why it waits, what you can do.

    DRIFT is a key as `emp diff --json` shows it, or a part of one, or a machine or program by any name that emp prints;
    with nothing, the only drift there is. One that has closed is told from the journal.
    """
    if len(drift) > 2:
        raise UsageError("name one drift, or a machine and one subject of it", hint="`emp diff` lists what differs")
    found = asyncio.run(_explain(directory, drift))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json(_as_json(found))
    elif found.explained is None:
        click.echo("\n".join(["nothing differs", *_lately(found.closed)]))
    else:
        from emp_orch.cli.output.explain_text import text

        click.echo(text(found.explained, found.now_ms, found.line))


def _as_json(found: _Found) -> dict[str, Any]:
    from emp_orch.api.views.drift_story import story_view

    if found.explained is None:
        return {"drift": None, "closed": found.closed}
    return {"drift": story_view(found.explained), "line": found.line}


def _lately(closed: tuple[str, ...]) -> list[str]:
    return ["closed lately:", *(f"  emp explain {key}" for key in closed[:OFFERED])] if closed else []


async def _explain(directory: Path, words: tuple[str, ...]) -> _Found:
    from emp_orch.control.apply.earlier_generations import reading
    from emp_orch.layout import Layout
    from emp_orch.store.redis.client import TRANSIENT, unreachable

    async with reading(Layout(directory)) as (settings, r):
        try:
            return await _read(directory, settings, r, words)
        except TRANSIENT as e:
            raise unreachable(settings.redis_url, e) from e


async def _read(directory: Path, settings: Settings, r: Client, words: tuple[str, ...]) -> _Found:
    from emp_orch.control.host.fileline import quoted
    from emp_orch.store.drift_stories import DriftStories
    from emp_orch.store.fleet.generations import read_generation
    from emp_orch.store.fleet.status import read_status
    from emp_orch.store.redis.client import time_ms
    from emp_orch.store.redis.keys import Keys

    keys = Keys(settings.prefix)
    stories = DriftStories(r, keys, settings.fleet)
    status = await read_status(r, keys, settings.fleet)
    found = await stories.meant(words, status)
    name = None if found or not words else _name(directory, words)
    if name is not None:
        standing = [i.drift for i in status.drift] if status else []
        found = [d.key for d in standing if name.is_about(d.machine_id, d.program or d.subject)]
        found = found or [k for k in await stories.closed() if name.is_about(*k.split("/", 2)[1:])][:1]
    now_ms = await time_ms(r)
    if not found and (not words or name is not None):
        return _Found(explained=None, closed=tuple(await stories.closed()), now_ms=now_ms)
    if not found:
        lately = "\n".join(_lately(tuple(await stories.closed())))
        raise UsageError(
            f"no drift {' '.join(words)} stands, and the journal has none", hint=lately or "see `emp diff`"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} drifts are meant by that; choose one:", hint=_choose(found))
    explained = await stories.of(found[0], status)
    if explained is None:
        raise UsageError(f"drift {found[0]} is gone, and the journal has none", hint="see `emp diff`")
    origin = explained.story.last.origin
    line = quoted(directory, origin, await read_generation(r, keys, settings.fleet)) if origin else ""
    return _Found(explained=explained, closed=(), now_ms=now_ms, line=line)


def _name(directory: Path, words: tuple[str, ...]) -> Name | None:
    """What is named, where it is no drift; None for what is nothing of this fleet either."""
    from emp_orch.cli.output.names import known_names
    from emp_orch.fleet.names import UnknownName
    from emp_orch.layout import Layout

    known = known_names(Layout(directory))
    try:
        return known.find(words) if known is not None else None
    except UnknownName:
        return None


def _choose(keys: list[str]) -> str:
    lines = [f"emp explain {key}" for key in keys[:OFFERED]]
    more = len(keys) - OFFERED
    return "\n     ".join([*lines, *([f"… and {more} more: emp diff"] if more > 0 else [])])
