"""`emp events`: what happened, straight from Redis, so that it works while the API does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.plaintext import shown_json

if TYPE_CHECKING:
    from emp_orch.settings import Settings
    from emp_orch.store.fleet.events import Event

MAX_LIMIT = 10_000


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Keep printing what comes, until Ctrl-C.")
@click.option(
    "-n", "--limit", type=click.IntRange(0, MAX_LIMIT), default=50, show_default=True, help="How many past ones."
)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def events(root: Path, follow: bool, limit: int, types: tuple[str, ...], as_json: bool) -> None:
    """Show what happened to machines, workers and jobs."""
    import asyncio

    from emp_orch.layout import Layout
    from emp_orch.settings import load

    settings = load(Layout(root))

    def show(found: Iterable[Event]) -> None:
        for event in found:
            click.echo(json_line(event) if as_json else line(event))

    try:
        asyncio.run(_events(settings, frozenset(types), limit, follow, show))
    except KeyboardInterrupt:
        return


async def _events(settings: Settings, types: frozenset[str], limit: int, follow: bool, show: Any) -> None:
    from emp_orch.store.fleet.events import Events
    from emp_orch.store.redis.client import TRANSIENT, connected, unreachable
    from emp_orch.store.redis.keys import Keys

    async with connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
        stream = Events(r, Keys(settings.prefix))
        try:
            after = await stream.latest_id()
            # With a filter the last `limit` that fit may lie far back.
            past = await stream.recent(MAX_LIMIT if types else limit) if limit else []
            show([e for e in past if not types or e.type in types][-limit:] if limit else [])
            if not follow:
                return
            async for batch in stream.follow(past[-1].id if past else after):
                show([e for e in batch if not types or e.type in types])
        except TRANSIENT as e:
            raise unreachable(settings.redis_url, e) from e


def line(event: Event) -> str:
    """`time  type  subject  details`, on one line whatever the event holds."""
    from datetime import datetime

    at = datetime.fromtimestamp(event.at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    data = dict(event.data)
    data.pop("type", None)
    subject = str(data.pop("machine_id", "") or "")
    details = " ".join(f"{key}={_value(value)}" for key, value in data.items())
    return f"{at}  {_plain(event.type):<18} {_plain(subject):<24} {details}".rstrip()


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _value(value: Any) -> str:
    import msgspec

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _plain(text)


def json_line(event: Event) -> str:
    import msgspec

    from emp_orch.web.times import rfc3339

    fields = {"id": event.id, "at": rfc3339(event.at_ms), "type": event.type, "data": event.data}
    return shown_json(msgspec.json.encode(fields).decode())
