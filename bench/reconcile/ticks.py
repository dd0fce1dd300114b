"""What the reconciler costs as the fleet grows: first look, ticks without and with changes, memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.queue.measure import quantile
from bench.queue.server import BenchRedis
from bench.reconcile.children import Child, Failed, child
from bench.reconcile.plan import Plan

CHANGED = 0.01
LEAST = 3


class TickCost(Struct, frozen=True, kw_only=True):
    """One fleet, one round. `first_*`: reading all and comparing all, by a process that knew nothing.

    `noop_*`: ticks while nobody says anything new; `changed_*`: the one after 1 % of the workers did.
    `beats_per_s`: heartbeats that came in meanwhile.
    """

    machines: int
    workers: int
    round: int
    generation_ms: float
    first_ms: float
    first_cpu_ms: float
    noop_ticks: int
    noop_cpu_ms: float
    noop_cpu_p99_ms: float
    noop_wall_ms: float
    changed_cpu_ms: float
    changed_wall_ms: float
    rss_mib: float
    beats_per_s: float


def _quiet(writer: Child, reconciler: Child, plan: Plan) -> dict[str, Any]:
    """Ticks in which nothing is new, and the heartbeats that came meanwhile."""
    reconciler.ask("ticks", seconds=0, least=1)  # the first of a process is not like the others
    before = writer.ask("beats")
    found = reconciler.ask("ticks", seconds=plan.tick_s, least=LEAST)
    after = writer.ask("beats")
    return {**found, "beats_per_s": (after["beats"] - before["beats"]) / (after["at"] - before["at"])}


def _changed(writer: Child, reconciler: Child, plan: Plan) -> tuple[float, float]:
    cpu_ms: list[float] = []
    wall_ms: list[float] = []
    # Where a tick takes seconds, two must do.
    while len(cpu_ms) < plan.changed_ticks and (len(cpu_ms) < 2 or sum(wall_ms) < plan.tick_s * 1_000):
        writer.ask("workers", part=CHANGED)
        found = reconciler.ask("ticks", seconds=0, least=1)
        cpu_ms += found["cpu_ms"]
        wall_ms += found["wall_ms"]
    return statistics.median(cpu_ms), statistics.median(wall_ms)


def cost(redis: BenchRedis, folder: Path, plan: Plan, machines: int, number: int) -> TickCost:
    """One round at one size. Raises Failed."""
    redis.clear()
    size = (str(machines), str(plan.gpus))
    with child("bench.reconcile.writer", redis.url, *size, log=folder / "writer.log") as writer:
        writer.ask("ready")
        with child("bench.reconcile.ticking", redis.url, str(folder), log=folder / "ticking.log") as reconciler:
            first = reconciler.ask("first")
            if first["drift"]:
                raise Failed(f"{machines} machines: a fleet in order has {first['drift']} drift")
            quiet = _quiet(writer, reconciler, plan)
            changed_cpu_ms, changed_wall_ms = _changed(writer, reconciler, plan)
    return TickCost(
        machines=machines,
        workers=machines * plan.gpus,
        round=number,
        generation_ms=first["generation_ms"],
        first_ms=first["first_ms"],
        first_cpu_ms=first["first_cpu_ms"],
        noop_ticks=len(quiet["cpu_ms"]),
        noop_cpu_ms=statistics.median(quiet["cpu_ms"]),
        noop_cpu_p99_ms=quantile(sorted(quiet["cpu_ms"]), 0.99),
        noop_wall_ms=statistics.median(quiet["wall_ms"]),
        changed_cpu_ms=changed_cpu_ms,
        changed_wall_ms=changed_wall_ms,
        rss_mib=quiet["rss_mib"],
        beats_per_s=quiet["beats_per_s"],
    )
