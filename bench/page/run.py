"""One run: a simulated fleet, emp's reconciler, API and monitor as they are, and a Chromium that looks at them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from msgspec import Struct
from playwright.sync_api import Browser

from bench.page.page import Busy, Looker, chromium
from bench.page.plan import Plan
from bench.queue import server
from bench.queue.noise import Noise
from bench.queue.report import Machine, measured_on
from bench.queue.server import BenchRedis, free_port
from bench.reconcile import simulated
from bench.reconcile.children import Child, Failed, child, daemon
from bench.stream.serving import emp
from emp_orch import settings
from emp_orch.layout import Layout

Say = Callable[[str], None]

# Of each view, what somebody who opens it wants to see.
USEFUL = {
    "overview": ".card[data-machine]",
    "drift": "tr[data-key]",
    "machines": ".card[data-machine]",
    "machines/m-1": ".diff tbody tr",
    "jobs": "#submit",
    "timeline": "#charts",
}
SCROLLED = ("machines", "drift")
TYPED = "m-73"


class View(Struct, frozen=True, kw_only=True):
    """One view: `paints_ms` of a fresh browser each, then the main thread `idle` and while the fleet `changing`."""

    name: str
    paints_ms: tuple[float, ...]
    idle: Busy
    changing: Busy
    changes: int
    elements: int


class Moved(Struct, frozen=True, kw_only=True):
    """A view while the fleet changes: between frames when scrolled, and from a typed letter to what it finds."""

    name: str
    frames_ms: tuple[float, ...]
    typed_ms: tuple[float, ...]


class Report(Struct, frozen=True, kw_only=True):
    plan: Plan
    machine: Machine
    chromium: str
    views: tuple[View, ...]
    moved: tuple[Moved, ...]
    heap_mib: float
    complaints: tuple[str, ...]


class _Changes:
    """Changes at an even pace, while somebody else is busy with the page."""

    def __init__(self, fleet: Child, plan: Plan) -> None:
        self._fleet = fleet
        self._plan = plan
        self.made = 0

    @contextmanager
    def during(self, seconds: float) -> Iterator[None]:
        answer: dict[str, Any] = {}
        asked = threading.Thread(
            target=lambda: answer.update(self._fleet.ask("change", per_s=self._plan.per_s, seconds=seconds))
        )
        asked.start()
        try:
            yield
        finally:
            asked.join()
            self.made = int(answer.get("made", 0))


def _view(browser: Browser, url: str, name: str, plan: Plan, changes: _Changes, complaints: list[str]) -> View:
    paints: list[float] = []
    for number in range(plan.paints):
        looker = Looker(browser)
        paints.append(looker.open(f"{url}/#/{name}", USEFUL[name]))
        if number < plan.paints - 1:
            looker.close()
    looker.page.wait_for_timeout(1_000)
    looker.watch()
    idle = looker.busy_for(plan.seconds)
    with changes.during(plan.seconds):
        looker.page.evaluate("window.longTasks.length = 0")
        changing = looker.busy_for(plan.seconds)
    elements = looker.elements()
    complaints += looker.complaints
    looker.close()
    return View(
        name=name,
        paints_ms=tuple(paints),
        idle=idle,
        changing=changing,
        changes=changes.made,
        elements=elements,
    )


def _moved(browser: Browser, url: str, name: str, plan: Plan, changes: _Changes, complaints: list[str]) -> Moved:
    looker = Looker(browser)
    looker.open(f"{url}/#/{name}", USEFUL[name])
    looker.page.wait_for_timeout(500)
    with changes.during(plan.scroll_s + 1):
        frames = looker.scroll(plan.scroll_s)
        looker.page.evaluate("scrollTo(0, 0)")
        typed = looker.type(TYPED)
    complaints += looker.complaints
    looker.close()
    return Moved(name=name, frames_ms=tuple(frames), typed_ms=tuple(typed))


def _heap_mib(browser: Browser, url: str) -> float:
    looker = Looker(browser)
    looker.open(f"{url}/#/machines", USEFUL["machines"])
    used = looker.counted()["JSHeapUsedSize"] / 2**20
    looker.close()
    return used


def _in_drift(fleet: Child, api: str, count: int) -> None:
    """Wait until the reconciler tells of `count` differences."""
    fleet.ask("drift", machines=count)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urlopen(f"{api}/api/drift", timeout=10) as answer:
            if len(json.load(answer)["data"]["drift"]) >= count:
                return
        time.sleep(0.2)
    raise Failed("the reconciler tells of no differences")


def _measured(
    redis: BenchRedis, folder: Path, plan: Plan, say: Say
) -> tuple[list[View], list[Moved], float, list[str], str]:
    layout = Layout(folder)
    layout.control.mkdir(parents=True, exist_ok=True)
    made = simulated.settings_of(redis.url, layout, api=free_port(), monitor=free_port())
    settings.save(layout, made)
    # A machine's page shows its log.
    layout.logs.mkdir(exist_ok=True)
    layout.log("machine-m-1").write_text("a line\n" * 200)
    size = (str(plan.machines), str(plan.gpus))
    reconcile = (sys.executable, "-m", "emp_orch", "-C", str(folder), "reconcile")
    views: list[View] = []
    complaints: list[str] = []
    with (
        child("bench.stream.changes", redis.url, *size, log=folder / "changes.log") as fleet,
        daemon(reconcile, log=folder / "reconcile.log"),
        emp(folder, made, "api") as api,
        emp(folder, made, "monitor") as monitor,
        chromium() as browser,
    ):
        fleet.ask("ready")
        _in_drift(fleet, api.url, plan.differences)
        changes = _Changes(fleet, plan)
        for name in USEFUL:
            view = _view(browser, monitor.url, name, plan, changes, complaints)
            views.append(view)
            say(
                f"{name}: {sorted(view.paints_ms)[len(view.paints_ms) // 2]:.0f} ms, {view.changing.percent:.0f} % busy"
            )
        moved = [_moved(browser, monitor.url, name, plan, changes, complaints) for name in SCROLLED]
        return views, moved, _heap_mib(browser, monitor.url), complaints, browser.version


def run(plan: Plan, say: Say) -> Report:
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as name, server.running(Path(name)) as redis:
        noise = Noise(redis)
        time.sleep(1)
        others = noise.cores()
        views, moved, heap_mib, complaints, version = _measured(redis, Path(name) / "fleet", plan, say)
        machine = measured_on(redis.version(), before, others)
    return Report(
        plan=plan,
        machine=machine,
        chromium=version,
        views=tuple(views),
        moved=tuple(moved),
        heap_mib=heap_mib,
        complaints=tuple(complaints),
    )
