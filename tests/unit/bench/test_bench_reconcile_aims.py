"""How the bench of the reconciler judges its figures."""

from __future__ import annotations

import pytest

from bench.reconcile.aims import Verdict
from bench.reconcile.figures import medians
from bench.reconcile.healing import Healing
from bench.reconcile.ticks import TickCost


@pytest.mark.parametrize(
    ("verdict", "judged", "met"),
    [
        (Verdict(what="absolute, within", figure=59.0, at_most=60), 59.0, True),
        (Verdict(what="absolute, beyond", figure=61.0, at_most=60), 61.0, False),
        (Verdict(what="a ratio, within", figure=50.0, other=1000.0, whose="x", at_most=0.05), 0.05, True),
        (Verdict(what="a ratio, beyond", figure=60.0, other=1000.0, whose="x", at_most=0.05), 0.06, False),
        (Verdict(what="shown only", figure=60.0, other=1000.0, whose="x"), 0.06, None),
        (Verdict(what="nobody to compare with", figure=60.0, whose="x", at_most=0.05), None, None),
        (Verdict(what="not measured", figure=None, at_most=60), None, None),
    ],
    ids=lambda v: v.what if isinstance(v, Verdict) else "",
)
def test_a_verdict(verdict: Verdict, judged: float | None, met: bool | None) -> None:
    assert verdict.judged == judged
    assert verdict.met is met


def cost(machines: int, number: int, noop_cpu_ms: float) -> TickCost:
    return TickCost(
        machines=machines,
        workers=machines * 8,
        round=number,
        generation_ms=1.0,
        first_ms=1.0,
        first_cpu_ms=1.0,
        noop_ticks=number,
        noop_cpu_ms=noop_cpu_ms,
        noop_cpu_p99_ms=1.0,
        noop_wall_ms=1.0,
        changed_cpu_ms=1.0,
        changed_wall_ms=1.0,
        rss_mib=1.0,
        beats_per_s=1.0,
    )


def test_rounds_become_medians_by_size() -> None:
    rounds = [cost(1_000, 0, 9.0), cost(100, 0, 1.0), cost(1_000, 1, 5.0), cost(1_000, 2, 7.0)]
    assert [(c.machines, c.workers, c.noop_cpu_ms) for c in medians(rounds)] == [(100, 800, 1.0), (1_000, 8_000, 7.0)]


def test_the_p99_of_few_kills_is_the_worst() -> None:
    took = Healing(what="x", took_ms=tuple(float(k) for k in range(30, 0, -1)))
    assert (took.quantile(0.5), took.quantile(0.99), took.quantile(0.0)) == (16.0, 30.0, 1.0)
