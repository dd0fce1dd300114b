"""One run: kills on a real machine, ticks of simulated fleets in shuffled order, changes that are waited for."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.peers import pins, setup
from bench.queue import server
from bench.queue.noise import Noise
from bench.queue.report import Missing, measured_on
from bench.queue.server import BenchRedis
from bench.reconcile import detection, healing, ticks
from bench.reconcile.children import Failed
from bench.reconcile.contenders import EMP, PM2, SUPERVISORD
from bench.reconcile.detection import Detection
from bench.reconcile.figures import Report, medians
from bench.reconcile.healing import Healing
from bench.reconcile.plan import Plan
from bench.reconcile.ticks import TickCost

Say = Callable[[str], None]
T = TypeVar("T")


class Part(StrEnum):
    HEALING = "healing"
    TICKS = "ticks"
    DETECTION = "detection"


class _Run:
    """What is measured with, and what could not be."""

    def __init__(self, redis: BenchRedis, folder: Path, plan: Plan, say: Say) -> None:
        self.redis = redis
        self.plan = plan
        self.say = say
        self.missing: list[Missing] = []
        self.others: list[float] = []
        self._folder = folder

    def fresh(self, name: str) -> Path:
        """A folder that nobody has used; first, how busy others are just now."""
        noise = Noise(self.redis)
        time.sleep(self.plan.quiet_s)
        self.others += [cores] if (cores := noise.cores()) is not None else []
        made = self._folder / name
        made.mkdir()
        return made

    def tried(self, what: str, measure: Callable[[], T]) -> T | None:
        """What `measure` found; None when it failed, and then it is in `missing`."""
        try:
            return measure()
        except Failed as e:
            self.say(f"{what} failed: {e}")
            self.missing.append(Missing(peer=what, reason=str(e)))
            return None


def _healing(run: _Run, cache: Path, contenders: tuple[str, ...]) -> list[Healing]:
    if PM2 in contenders:
        try:
            setup.ensure(cache, PM2)
        except setup.CannotInstall as e:
            run.say(f"pm2 cannot be installed: {e}")
            run.missing.append(Missing(peer=PM2, reason=f"cannot be installed: {e}"))
            contenders = tuple(c for c in contenders if c != PM2)
    folder = run.fresh(Part.HEALING)
    measure = partial(healing.measure, run.redis, folder, cache, contenders, run.plan.kills)
    found = run.tried(Part.HEALING, measure) or []
    for h in found:
        run.say(f"{h.what}: {h.quantile(0.5):.1f} ms")
    return found


def _ticks(run: _Run) -> list[TickCost]:
    found: list[TickCost] = []
    for number in range(run.plan.rounds):
        sizes = [m for m in run.plan.machines if number == 0 or m < run.plan.once_from]
        random.Random(number).shuffle(sizes)
        for machines in sizes:
            what = f"ticks of {machines} machines, round {number + 1}"
            folder = run.fresh(f"ticks-{machines}-{number}")
            cost = run.tried(what, partial(ticks.cost, run.redis, folder, run.plan, machines, number))
            if cost is not None:
                found.append(cost)
                run.say(f"{what}: first {cost.first_ms:.0f} ms, no-op {cost.noop_cpu_ms:.1f} ms CPU")
    return found


def _detection(run: _Run) -> Detection | None:
    folder = run.fresh(Part.DETECTION)
    found = run.tried(Part.DETECTION, partial(detection.measure, run.redis, folder, run.plan))
    if found:
        run.say(f"a change is seen in {found.quantile('status_ms', 0.5):.0f} ms")
    return found


def run(parts: tuple[Part, ...], plan: Plan, cache: Path, *, others: bool, say: Say) -> Report:
    """Measure `parts`; what fails is in the report's `missing`. `others` False: emp alone, with nobody beside it."""
    before = os.getloadavg()
    contenders = (EMP, SUPERVISORD, PM2) if others else (EMP, SUPERVISORD)
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as name, server.running(Path(name)) as redis:
        at = _Run(redis, Path(name), plan, say)
        healed = _healing(at, cache, contenders) if Part.HEALING in parts else []
        costs = _ticks(at) if Part.TICKS in parts else []
        detected = _detection(at) if Part.DETECTION in parts else None
        machine = measured_on(redis.version(), before, statistics.fmean(at.others) if at.others else None)
    return Report(
        plan=plan,
        machine=machine,
        pins={PM2: pins.NODE[PM2]},
        healing=tuple(healed),
        ticks=tuple(costs),
        costs=medians(costs),
        detection=detected,
        missing=tuple(at.missing),
    )
