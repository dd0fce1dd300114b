"""What the bench makes of its figures: medians, ratios, verdicts."""

from __future__ import annotations

import msgspec
import pytest

from bench.queue.aims import AIMS, Against, Aim, Bound, judge
from bench.queue.measure import Drain, Idle, Sample, quantile, rate
from bench.queue.peers import EMP, EMP_WORKER
from bench.queue.report import Summary, summarise, summary
from bench.queue.tables import table

PYTHON = frozenset({EMP, "slow", "quick"})


def figures(peer: str, **values: float) -> Summary:
    return summary(peer, {name: (value,) for name, value in values.items()})


def sample(peer: str, number: int, noop_per_s: float) -> Sample:
    drain = Drain(
        one_per_s=1_000,
        noop_per_s=noop_per_s,
        process_us=30,
        process_commands=4,
        enqueue_us=20,
        enqueue_commands=2,
    )
    return Sample(peer=peer, round=number, jobs=100, drain=drain)


@pytest.mark.parametrize(
    ("aim", "emp", "peers", "whose", "ratio", "met"),
    [
        (Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=2.0), 60, {"slow": 10, "quick": 20}, "quick", 3.0, True),
        (Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=4.0), 60, {"slow": 10, "quick": 20}, "quick", 3.0, False),
        (Aim(what="", metric="m", bound=Bound.AT_MOST, aimed=1.2), 12, {"slow": 20, "quick": 10}, "quick", 1.2, True),
        (Aim(what="", metric="m", bound=Bound.AT_MOST, aimed=1.2), 13, {"slow": 20, "quick": 10}, "quick", 1.3, False),
        (Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=None), 60, {"quick": 20}, "quick", 3.0, None),
        (Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=1.0), 60, {}, "", None, None),
        (
            Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=4.0, against=Against.BEST_PYTHON),
            60,
            {"slow": 10, "node": 90},
            "slow",
            6.0,
            True,
        ),
    ],
)
def test_a_figure_is_judged_by_its_ratio(
    aim: Aim, emp: float, peers: dict[str, float], whose: str, ratio: float | None, met: bool | None
) -> None:
    rows = [figures(EMP, m=emp), *(figures(name, m=figure) for name, figure in peers.items())]
    verdict = judge(aim, rows, PYTHON)
    assert (verdict.whose, verdict.ratio, verdict.met) == (whose, ratio, met)


def test_idle_commands_are_judged_without_the_heartbeats() -> None:
    (aim,) = [a for a in AIMS if a.against is Against.NOTHING]
    quiet = judge(aim, [figures(EMP_WORKER, idle_beside_heartbeats_per_s=0.0)], PYTHON)
    polling = judge(aim, [figures(EMP_WORKER, idle_beside_heartbeats_per_s=0.1)], PYTHON)
    assert (quiet.met, polling.met) == (True, False)


def test_the_tail_is_judged_by_emps_own_median() -> None:
    (aim,) = [a for a in AIMS if a.against is Against.OWN]
    rows = [figures(EMP, dispatch_p50_ms=1.0, dispatch_p99_ms=2.5), figures("quick", dispatch_p50_ms=9.0)]
    verdict = judge(aim, rows, PYTHON)
    assert (verdict.ratio, verdict.met) == (2.5, False)


def test_medians_are_taken_per_peer() -> None:
    (found,) = summarise([sample(EMP, k, figure) for k, figure in enumerate([900, 100, 200])])
    assert (found.peer, found.rounds) == (EMP, 3)
    assert found.get("noop_per_s") == 200
    assert found.get("life_us") == 50
    assert found.get("dispatch_p50_ms") is None


def test_heartbeats_are_taken_off_what_an_idle_worker_sends() -> None:
    idle = Idle(idle_per_s=9.0, idle_sent_per_s=0.55, idle_heartbeats_per_s=0.5)
    (found,) = summarise([msgspec.structs.replace(sample(EMP, 0, 100), idle=idle)])
    assert found.get("idle_beside_heartbeats_per_s") == pytest.approx(0.05)


def test_the_spread_over_the_rounds_is_kept() -> None:
    aim = Aim(what="", metric="m", bound=Bound.AT_LEAST, aimed=2.0)
    verdict = judge(aim, [summary(EMP, {"m": (30, 10, 20)}), summary("quick", {"m": (10, 10, 4)})], PYTHON)
    assert (verdict.ratio, verdict.by_round) == (2.0, (3.0, 1.0, 5.0))


def test_a_rate_leaves_out_start_and_tail() -> None:
    steady = [k * 1_000_000 for k in range(10, 90)]  # one a millisecond
    late = [10_000_000_000 + k for k in range(8)]
    assert rate((*steady, *late)) == pytest.approx(1_000, rel=0.05)


def test_a_quantile_stays_within_the_figures() -> None:
    figures = [float(k) for k in range(100)]
    assert (quantile(figures, 0.5), quantile(figures, 0.99), quantile([3.0], 0.99)) == (50.0, 99.0, 3.0)


def test_tables_line_up() -> None:
    assert table(["peer", "/s"], [["emp", "12,000"], ["a longer one", "–"]]).splitlines() == [
        "| peer         |     /s |",
        "|--------------|-------:|",
        "| emp          | 12,000 |",
        "| a longer one |      – |",
    ]
