"""A pool as a user has it: jobs in, it grows; an order holds it; all done, it shrinks to nothing; gone from emp.yaml,
so are its boxes. The engine is another package's provider, whose boxes are processes that join nowhere.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.pools import boxes_provider
from support.stack.stack import Stack, until

FLEET = """\
version: 1
name: pooled
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}, machine_url: "http://127.0.0.1:{api}"}}
monitor: {{port: {monitor}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: {simulation}}}
machines: {{}}
{pools}reconcile: {{interval: {interval}}}
"""
POOLS = """\
pools:
  renders:
    provider: boxes
    provider_options: {{folder: {folder}}}
    size: 0..3
    services: [simulation]
    scale: {{up_after: 0s, down_after: 1s}}
"""


class Pooled:
    """A fleet with one pool, and the folder of its engine."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.engine = stack, folder / "engine"
        about = folder / "own" / "emp_boxes-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emp-boxes\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[emp.providers]\nboxes = own_boxes:Boxes\n")
        (about.parent / "own_boxes.py").write_text(Path(str(boxes_provider.__file__)).read_text())
        self._path = str(about.parent)

    def write(self, *, pools: bool = True, interval: str = "1s") -> None:
        text = POOLS.format(folder=self.engine) if pools else ""
        self.stack.file.write_text(FLEET.format(**self.stack.ports, pools=text, interval=interval))

    def apply(self, *, pools: bool = True, interval: str = "1s") -> None:
        self.write(pools=pools, interval=interval)
        self.stack.ok("apply", "-y", "--timeout", "60", PYTHONPATH=self._path)

    def boxes(self) -> dict[str, int]:
        return {p.stem: int(p.read_text() or 0) for p in self.engine.glob("*.box")}

    def until_boxes(self, count: int) -> dict[str, int]:
        def look() -> dict[str, int] | bool:
            found = self.boxes()
            return (found or True) if len(found) == count else False

        found = until(f"{count} boxes", look, shown=lambda: f"{self.boxes()}\n{self.stack.log_ends()}")
        return found if isinstance(found, dict) else {}

    def drifts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.stack.diff()[1]["drift"]
        return found

    def journal(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.stack.ok("journal", "-n", "1000", "--json"))
        return found

    def end(self) -> None:
        for pid in self.boxes().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def pooled(folder_stack: Stack, tmp_path: Path) -> Iterator[Pooled]:
    made = Pooled(folder_stack, tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_jobs_in_it_grows_all_done_it_shrinks(pooled: Pooled) -> None:
    stack = pooled.stack
    pooled.apply()
    for number in range(5):
        stack.ok("submit", "simulation", "--id", f"j{number}", "--payload", "{}")
    first = pooled.until_boxes(3)

    (killed, pid), *_ = first.items()
    os.kill(pid, signal.SIGKILL)
    until("another box", lambda: killed not in pooled.boxes() and len(pooled.boxes()) == 3, shown=stack.log_ends)

    assert "renders is held at 1" in stack.ok("scale", "renders", "1", "--reason", "tea")
    held = pooled.until_boxes(1)
    refused = stack.run("scale", "renders", "4")
    assert refused.returncode == 2 and "pool renders has at most 3 members, not 4" in refused.stderr
    assert "follows its queue again" in stack.ok("scale", "renders", "auto")
    assert held.items() <= pooled.until_boxes(3).items()

    (pooled.engine / "full").touch()
    stack.ok("cancel", *(f"j{n}" for n in range(5)))
    pooled.until_boxes(0)
    stack.ok("scale", "renders", "2")

    def said() -> str:
        found = (d["failed"] for d in pooled.drifts() if d["drift"]["kind"] == "pool-short")
        return next((f for f in found if f), "")

    assert until("what the engine says", said, shown=stack.log_ends) == "no node has a free gpu"
    (pooled.engine / "full").unlink()
    pooled.until_boxes(2)
    types = {e["type"] for e in pooled.journal()}
    assert {"pool_resized", "member_asked", "member_removed", "scaled", "scale_lifted"} <= types
    stack.ok("journal", "--replay")  # each round decides the same again

    pooled.write(pools=False)
    assert "- pool renders: its 2 members go" in stack.run("apply").stderr  # there is nobody to say yes
    pooled.apply(pools=False)
    pooled.until_boxes(0)


def test_a_job_is_looked_at_when_it_is_queued_and_not_at_the_next_round(pooled: Pooled) -> None:
    pooled.apply(interval="1h")
    pooled.stack.ok("submit", "simulation", "--payload", "{}")
    pooled.until_boxes(1)
