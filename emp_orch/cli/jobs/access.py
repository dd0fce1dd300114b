"""What the commands about jobs share: the fleet's queue, JSON in and out, questions."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from emp_orch.errors import UsageError
from emp_orch.plaintext import shown_json

if TYPE_CHECKING:
    from emp_orch.settings import Settings
    from emp_orch.store.fleet.events import Events
    from emp_orch.store.queue.explain import Explainer
    from emp_orch.store.queue.known_services import KnownServices
    from emp_orch.store.queue.submit import Queue
    from emp_orch.store.redis.client import Client
    from emp_orch.store.redis.keys import Keys

STATUSES = ("pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable")
ENDED_STATUSES = ("completed", "failed", "cancelled", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The queue of one fleet, its events, who explains its jobs, and what was applied."""

    redis: Client
    queue: Queue
    events: Events
    services: KnownServices
    explainer: Explainer
    keys: Keys
    settings: Settings


@asynccontextmanager
async def fleet_queue(folder: Path) -> AsyncIterator[Access]:
    """The queue of the fleet in `folder`. Raises Unreachable, and UsageError when none was applied there."""
    from emp_orch import settings
    from emp_orch.layout import Layout
    from emp_orch.store.fleet.events import Events
    from emp_orch.store.queue.explain import Explainer
    from emp_orch.store.queue.known_services import KnownServices
    from emp_orch.store.queue.submit import Queue
    from emp_orch.store.redis.client import TRANSIENT, connected, unreachable
    from emp_orch.store.redis.keys import Keys
    from emp_orch.store.redis.pipelined import Pipelined

    told = settings.load(Layout(folder))
    keys = Keys(told.prefix)
    async with connected(told.redis_url, owner=told.redis_owner) as r:
        line = Pipelined(r)
        try:
            yield Access(
                redis=r,
                queue=Queue(r, keys, line.call, line.calls, replicas=told.replicas),
                events=Events(r, keys),
                services=KnownServices(r, keys, told.fleet),
                explainer=Explainer(r, keys, told.fleet),
                keys=keys,
                settings=told,
            )
        except BrokenPipeError:
            raise  # of standard output, not of Redis
        except TRANSIENT as e:
            raise unreachable(told.redis_url, e) from e
        finally:
            await line.aclose()


def json_option(name: str, text: str, folder: Path) -> Any:
    """The value of an option: JSON, `@file` (relative to `folder`), or `-` for standard input."""
    if text == "-":
        return _json(name, "standard input", _bounded(name, "standard input", sys.stdin.buffer))
    if not text.startswith("@"):
        return _json(name, "", text.encode(errors="surrogateescape"))
    try:
        with (folder / text[1:]).open("rb") as file:
            return _json(name, text[1:], _bounded(name, text[1:], file))
    except (OSError, ValueError) as e:
        why = (e.strerror or e) if isinstance(e, OSError) else "it is no path"
        raise UsageError(f"{name}: cannot read {text[1:]}: {why}") from e


def _bounded(name: str, where: str, file: BinaryIO) -> bytes:
    from emp_orch.jobs.document.submission import MAX_JOB_BYTES

    data = file.read(MAX_JOB_BYTES + 1)
    if len(data) > MAX_JOB_BYTES:
        raise UsageError(f"{name}: {where} is larger than a whole job may be, {MAX_JOB_BYTES:,} bytes")
    return data


def _json(name: str, where: str, data: bytes) -> Any:
    """`data` decoded. `where`: its file, '' for the option itself. Raises UsageError with line and column."""
    import codecs

    import msgspec

    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        hint = "" if where else "@FILE reads a file, - standard input"
        place = f"{where}{_place(data, str(e))}" if where else "its value"
        raise UsageError(f"{name}: {place} is not JSON: {e}", hint=hint) from e


def _place(data: bytes, error: str) -> str:
    """`:line:column` of what msgspec stumbled over; '' when it does not say."""
    found = re.search(r"\(byte (\d+)\)", error)
    if found is None and "truncated" not in error:
        return ""
    before = data[: int(found[1])] if found else data
    lines = before.decode(errors="replace").split("\n")
    return f":{len(lines)}:{len(lines[-1]) + 1}"


def print_json(value: Any) -> None:
    import msgspec

    click.echo(shown_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def print_job(job: Any) -> None:
    """As print_json; of an input's URL only where it leads, for its query may be a key."""
    import msgspec

    from emp_orch.jobs.document.inputs import shown_source

    told = msgspec.to_builtins(job)
    if inputs := getattr(job, "inputs", None):
        told["inputs"] = {name: shown_source(source) for name, source in inputs.items()}
    print_json(told)


def short_json(value: Any, most: int = 1_000) -> str:
    """JSON on one line, cut at `most` characters."""
    import msgspec

    text = plain(msgspec.json.encode(value).decode())
    return text if len(text) <= most else f"{text[:most]}… (--json has all)"


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the person agrees. Raises UsageError when there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: there is nobody to ask", hint="say yes beforehand with -y")
    click.confirm(f"{question}?", abort=True, err=True)


def plural(count: int, noun: str = "job") -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def terminal_width() -> int:
    """Columns to write in: the terminal's, at least 40; without a terminal there is no end."""
    import shutil

    return max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 100_000


def plain(text: str) -> str:
    """Somebody else's words on one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
