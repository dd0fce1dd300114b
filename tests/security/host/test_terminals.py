"""Words that a job, a service, a worker or a stranger in Redis chose never steer the terminal of who looks on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from emp_orch.cli.inspect.logs import cleaned
from emp_orch.cli.main import main
from emp_orch.cli.output.progress import Progress
from emp_orch.settings import save
from support.host.terminal import HOSTILE, obeyed
from support.hostile.corpus import Case, Standing, standing
from support.hostile.world import World
from support.redis.server import running_server

LOOKS = (
    *(("status",), ("status", "-a"), ("status", "--json"), ("diff",), ("diff", "--json"), ("doctor",)),
    *(("doctor", "--json"), ("explain",), ("explain", "--json"), ("events",), ("events", "--json"), ("journal",)),
    *(("journal", "--json"), ("journal", "--replay"), ("history",), ("logs",), ("logs", "--json"), ("logs", "--list")),
    *(("jobs",), ("jobs", "--json"), ("jobs", "lanes"), ("jobs", "lanes", "--json"), ("keys",)),
)
PER_JOB = (("jobs", "show"), ("jobs", "show", "--json"), ("jobs", "explain"), ("jobs", "wait", "--timeout", "0.1"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with running_server("redis", tmp_path / "server") as server:
        made = World(server.url, tmp_path / "fleet")
        await made.build()
        save(made.layout, made.settings)
        async with made.running():
            yield made
        await made.raw.aclose()
        await made.r.aclose()


# What turns the direction of writing, or parts lines.
UNFIT = re.compile("[\u200e\u200f\u2028-\u202e\u2066-\u2069\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printed(folder: Path, *words: str) -> str:
    """All that `emp WORDS…` prints, in this process."""
    before = sys.argv
    sys.argv = ["emp", "-C", str(folder), *words]
    try:
        with CliRunner().isolation() as (out, err, _):
            with contextlib.suppress(SystemExit):
                main()
            sys.stdout.flush()
            sys.stderr.flush()
            return (out.getvalue() + err.getvalue()).decode("utf-8", "surrogateescape")
    finally:
        sys.argv = before


def steers(text: str) -> str:
    """Why `text` is not fit for a terminal; empty where it is."""
    done, drawn = obeyed(text)
    if done:
        return f"the terminal did {sorted(done)}"
    return f"it shows {found.group()!a}" if (found := UNFIT.search(drawn)) else ""


# --- what stands in Redis


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a document there is a text."""
    match value:
        case str():
            yield path
        case dict():
            for name, part in value.items():
                yield from leaves(part, (*path, name))
        case list():
            for at, part in enumerate(value):
                yield from leaves(part, (*path, at))


def spoilt(value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return value + HOSTILE
    if isinstance(value, dict):
        return {**value, path[0]: spoilt(value[path[0]], path[1:])}
    return [*value[: path[0]], spoilt(value[path[0]], path[1:]), *value[path[0] + 1 :]]


def documents(keys: list[Standing]) -> Iterator[tuple[Standing, bytes, bytes, Any]]:
    """Key, field, what stands before the document, the document; a bare text is one, too."""
    for s in keys:
        for field, text in s.parts:
            if s.kind not in ("string", "hash", "stream"):
                continue
            start = next((i for i in (text.find(b"{"), text.find(b"[")) if 0 <= i < 120), 0)
            try:
                yield s, field, text[:start], json.loads(text[start:])
            except ValueError:
                yield s, field, b"", text.decode(errors="replace")


def rounds(keys: list[Standing]) -> list[list[Case]]:
    """In the n-th round of harms the n-th text of every document is hostile."""
    found: list[list[Case]] = []
    for s, field, head, document in documents(keys):
        for n, path in enumerate(leaves(document)):
            changed = spoilt(document, path)
            new = head + (changed if isinstance(changed, str) else json.dumps(changed)).encode()
            match s.kind:
                case "string":
                    command: tuple[Any, ...] = ("SET", s.key, new)
                case "hash":
                    command = ("HSET", s.key, field, new)
                case _:
                    fields = dict(s.parts) | {field: new}
                    command = ("XADD", s.key, "*", *(part for pair in fields.items() for part in pair))
            found += [[]] * (n + 1 - len(found))
            found[n] = [*found[n], Case(s.key, f"{field!r} {path}", (command,))]
    return found


async def test_nothing_in_redis_steers_a_terminal(world: World) -> None:
    log = world.layout.logs / "api.log"
    log.write_text(f"2026-01-01T00:00:00Z {HOSTILE}\n", encoding="utf-8")
    looks = [*LOOKS, *((*words, world.jobs[name]) for words in PER_JOB for name in ("failed", "nobody", "waiting-0"))]
    wrong: list[str] = []
    shown = 0
    for cases in rounds(await standing(world.raw)):
        for case in cases:
            await world.harm(case)
        for words in looks:
            text = await asyncio.to_thread(printed, world.layout.root, *words)
            assert "a fault in emp itself" not in text, f"emp {' '.join(words)}: {text}"
            shown += "turned" in text
            if words[-1] == "--json" and words[0] in ("logs", "events"):
                assert all(isinstance(json.loads(line), dict) for line in text.splitlines()), text
            if why := steers(text):
                wrong.append(f"emp {' '.join(words)}: {why}\n{text!a}")
        status, metrics = await world.get("/metrics")
        values = {v for f in text_string_to_metric_families(metrics) for s in f.samples for v in s.labels.values()}
        assert status == 200 and all("\n" not in v or HOSTILE in v for v in values), metrics
        await world.heal(*cases)
    assert not wrong, "\n\n".join(wrong)
    assert shown > 50, "hostile words were shown, as words"


# --- logs, and what is shown while one waits

TEXT = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.lists(st.sampled_from([*HOSTILE, "\x1b[", "\x1b]", "\x9d", "\x1bP", "\x1b", "2J", "m", ";", "x"])).map("".join),
)
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@settings(STEADY, max_examples=400)
@given(TEXT)
def test_a_line_of_a_log_steers_nothing(text: str) -> None:
    assert not steers(cleaned(text.replace("\n", "")))


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@settings(STEADY, max_examples=200)
@given(TEXT)
@pytest.mark.parametrize("kind", [Tty, io.StringIO])
def test_progress_steers_no_more_than_its_own_line(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], text: str
) -> None:
    out = kind()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", out)
        with Progress() as progress:
            progress.stage(text)
            progress.line(text)
    assert not steers(out.getvalue().replace("\r\x1b[K", ""))
