"""All that one run found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from bench.queue.report import Machine, Missing
from bench.reconcile.detection import Detection
from bench.reconcile.healing import Healing
from bench.reconcile.plan import Plan
from bench.reconcile.ticks import TickCost


class Report(Struct, frozen=True, kw_only=True):
    """`ticks` are all rounds, `costs` the medians of each size; what was not measured is empty or None."""

    plan: Plan
    machine: Machine
    pins: dict[str, tuple[str, ...]]
    healing: tuple[Healing, ...]
    ticks: tuple[TickCost, ...]
    costs: tuple[TickCost, ...]
    detection: Detection | None
    missing: tuple[Missing, ...]

    def healed(self, what: str) -> Healing | None:
        return next((h for h in self.healing if h.what == what), None)

    def cost(self, machines: int) -> TickCost | None:
        return next((c for c in self.costs if c.machines == machines), None)


def medians(ticks: Sequence[TickCost]) -> tuple[TickCost, ...]:
    """One for each size, smallest first: of every figure the median of its rounds."""
    sizes = sorted({t.machines for t in ticks})
    return tuple(_median([t for t in ticks if t.machines == size]) for size in sizes)


def _median(rounds: Sequence[TickCost]) -> TickCost:
    figures = [msgspec.structs.asdict(r) for r in rounds]
    return msgspec.convert({name: _of(name, [f[name] for f in figures]) for name in figures[0]}, TickCost)


def _of(name: str, values: list[float]) -> float | int:
    whole = name in ("machines", "workers", "round", "noop_ticks")
    return int(statistics.median(values)) if whole else float(statistics.median(values))
