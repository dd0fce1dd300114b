"""The aims, and whether they were met: ratios within one run where there is something to divide by."""

from __future__ import annotations

from msgspec import Struct

from bench.reconcile.contenders import EMP, PM2, SUPERVISORD
from bench.reconcile.figures import Report
from bench.reconcile.healing import ALONE, WORKER

SMALL, LARGE = 1_000, 10_000


class Verdict(Struct, frozen=True, kw_only=True):
    """`figure` in `unit`; where `other` is given, what is judged is their ratio. `at_most` None: shown, not judged."""

    what: str
    figure: float | None
    unit: str = "ms"
    other: float | None = None
    whose: str = ""
    at_most: float | None = None

    @property
    def judged(self) -> float | None:
        """The figure, or the ratio, that `at_most` bounds; None for want of figures."""
        if self.figure is None or not self.whose:
            return self.figure
        return self.figure / self.other if self.other else None

    @property
    def met(self) -> bool | None:
        return None if self.at_most is None or self.judged is None else self.judged <= self.at_most


def _healed(report: Report, what: str, part: float) -> float | None:
    found = report.healed(what)
    return found.quantile(part) if found else None


def _noop(report: Report, machines: int) -> float | None:
    cost = report.cost(machines)
    return cost.noop_cpu_ms if cost else None


def _seen(report: Report, name: str, part: float) -> float | None:
    return report.detection.quantile(name, part) if report.detection else None


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """Every aim, in the order in which it is shown."""
    first = report.cost(SMALL)
    replaced = [
        Verdict(
            what=f"a killed program's replacement runs, {name}",
            figure=_healed(report, EMP, part),
            other=_healed(report, other, part),
            whose=other,
            at_most=aim,
        )
        for name, part, other, aim in (
            ("p50", 0.5, SUPERVISORD, 1 / 20),
            ("p99", 0.99, SUPERVISORD, 1 / 20),
            ("p50", 0.5, PM2, None),
        )
    ]
    soon = [
        Verdict(what=f"the same in ms, {name}", figure=_healed(report, EMP, part), at_most=aim)
        for name, part, aim in (("p50", 0.5, 10), ("p99", 0.99, 20))
    ]
    return (
        *replaced,
        *soon,
        Verdict(
            what="a killed worker is idle again, p50",
            figure=_healed(report, WORKER, 0.5),
            other=_healed(report, ALONE, 0.5),
            whose="its start alone",
            at_most=1.2,
        ),
        Verdict(what="first read and diff of 8,000 workers", figure=first.first_ms if first else None, at_most=60),
        Verdict(what="no-op tick at 1,000 machines", figure=_noop(report, SMALL), unit="ms CPU", at_most=5),
        Verdict(
            what="no-op tick at 10,000 machines",
            figure=_noop(report, LARGE),
            unit="ms CPU",
            other=_noop(report, SMALL),
            whose="at 1,000",
            at_most=2,
        ),
        Verdict(what="a change is in the status, p99", figure=_seen(report, "status_ms", 0.99), at_most=250),
        Verdict(what="a change is in GET /api/drift, p99", figure=_seen(report, "api_ms", 0.99), at_most=250),
    )
