"""The aims as ratios within one run, and whether they were met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from bench.queue.peers import EMP, EMP_ROWS, EMP_SEVERAL, EMP_WORKER
from bench.queue.report import Summary


class Bound(StrEnum):
    AT_LEAST = "≥"
    AT_MOST = "≤"


class Against(StrEnum):
    """What emp's figure is divided by."""

    BEST = "the best peer's"
    BEST_PYTHON = "the best Python peer's"
    OWN = "its own p50"
    NOTHING = "an absolute figure"


class Aim(Struct, frozen=True, kw_only=True):
    """`aimed` None: shown, not judged. Where much is better, the best peer is the one with the most."""

    what: str
    metric: str
    bound: Bound
    aimed: float | None
    against: Against = Against.BEST
    row: str = EMP


AIMS = (
    Aim(what="enqueue one by one", metric="one_per_s", bound=Bound.AT_LEAST, aimed=1.0),
    Aim(what="enqueue in bulk (peers: bulk, or 100 at once)", metric="many_per_s", bound=Bound.AT_LEAST, aimed=5.0),
    Aim(
        what="no-op jobs, one process, one a claim",
        metric="noop_per_s",
        bound=Bound.AT_LEAST,
        aimed=4.0,
        against=Against.BEST_PYTHON,
    ),
    Aim(
        what="no-op jobs, one process, several a claim",
        metric="noop_per_s",
        bound=Bound.AT_LEAST,
        aimed=4.0,
        against=Against.BEST_PYTHON,
        row=EMP_SEVERAL,
    ),
    Aim(what="no-op jobs, one a claim, beside all", metric="noop_per_s", bound=Bound.AT_LEAST, aimed=None),
    Aim(
        what="no-op jobs, several a claim, beside all",
        metric="noop_per_s",
        bound=Bound.AT_LEAST,
        aimed=None,
        row=EMP_SEVERAL,
    ),
    Aim(what="Redis CPU of a job's life", metric="life_us", bound=Bound.AT_MOST, aimed=1.0),
    Aim(what="dispatch p50", metric="dispatch_p50_ms", bound=Bound.AT_MOST, aimed=1.2),
    Aim(what="dispatch p99", metric="dispatch_p99_ms", bound=Bound.AT_MOST, aimed=2.0, against=Against.OWN),
    Aim(
        what="dispatch p50, a whole worker",
        metric="dispatch_p50_ms",
        bound=Bound.AT_MOST,
        aimed=None,
        row=EMP_WORKER,
    ),
    Aim(
        what="idle commands/s sent by a whole worker, heartbeat aside",
        metric="idle_beside_heartbeats_per_s",
        bound=Bound.AT_MOST,
        aimed=0.0,
        against=Against.NOTHING,
        row=EMP_WORKER,
    ),
)


class Verdict(Struct, frozen=True, kw_only=True):
    """`met` None: nothing to judge, for want of an aim or of a figure. `by_round`: the ratio in each round."""

    aim: Aim
    emp: float | None
    other: float | None
    whose: str
    ratio: float | None
    by_round: tuple[float, ...]
    met: bool | None


def _best(summaries: Iterable[Summary], aim: Aim) -> Summary | None:
    found = [(figure, s) for s in summaries if (figure := s.get(aim.metric)) is not None]
    if not found:
        return None
    choose = max if aim.bound is Bound.AT_LEAST else min
    return choose(found, key=lambda pair: pair[0])[1]


def _others(
    aim: Aim, own: Summary, summaries: Sequence[Summary], python_peers: frozenset[str]
) -> tuple[tuple[float, ...], float | None, str]:
    """What emp's figure is divided by, round after round, its median, and whose it is."""
    peers = [s for s in summaries if s.peer not in EMP_ROWS]
    match aim.against:
        case Against.NOTHING:
            return (1.0,) * own.rounds, 1.0, ""
        case Against.OWN:
            return own.values.get("dispatch_p50_ms", ()), own.get("dispatch_p50_ms"), "its own p50"
        case Against.BEST:
            best = _best(peers, aim)
        case Against.BEST_PYTHON:
            best = _best([p for p in peers if p.peer in python_peers], aim)
    return ((), None, "") if best is None else (best.values[aim.metric], best.get(aim.metric), best.peer)


def judge(aim: Aim, summaries: Sequence[Summary], python_peers: frozenset[str]) -> Verdict:
    """emp's median beside the median of what the aim names."""
    own = next((s for s in summaries if s.peer == aim.row), None)
    if own is None or (emp := own.get(aim.metric)) is None:
        return Verdict(aim=aim, emp=None, other=None, whose="", ratio=None, by_round=(), met=None)
    rounds, other, whose = _others(aim, own, summaries, python_peers)
    ratio = emp / other if other else None
    by_round = tuple(e / o for e, o in zip(own.values[aim.metric], rounds, strict=False) if o)
    met = None
    if aim.aimed is not None and ratio is not None:
        met = ratio >= aim.aimed if aim.bound is Bound.AT_LEAST else ratio <= aim.aimed
    return Verdict(aim=aim, emp=emp, other=other, whose=whose, ratio=ratio, by_round=by_round, met=met)
