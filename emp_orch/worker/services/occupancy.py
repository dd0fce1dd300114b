"""How long a service is occupied by somebody else, and whether that is more than passing."""

from __future__ import annotations

from msgspec import Struct, structs

from emp_orch.fleet.model.observed import ConnectorReport, Occupant

# Somebody who looks at a picture of his own in between is not in anybody's way.
FOREIGN_S = 60.0


class _Since(Struct, frozen=True, kw_only=True):
    """`at_ms` by Redis' clock, 0 until that was asked for."""

    report: ConnectorReport
    began_s: float
    at_ms: int = 0


class Occupied:
    """What the probes of each service said of it, over time. Seconds are of a clock that only runs."""

    def __init__(self, job_timeout_s: float) -> None:
        self._job_timeout_s = job_timeout_s
        self._since: dict[str, _Since] = {}

    def judged(self, service: str, report: ConnectorReport, now_s: float) -> ConnectorReport:
        """`report` with since when, and with who only where that is worth a word.

        A run of emp's is over when its worker's limit has passed: one that goes on then is stuck.
        """
        if not report.occupied_by:
            self._since.pop(service, None)
            return report
        before = self._since.get(service)
        since = _Since(report=report, began_s=now_s)
        if before is not None and _goes_on(before.report, report):
            since = structs.replace(before, report=report)
        self._since[service] = since
        lasts_s = now_s - since.began_s
        match report.occupant:
            case Occupant.STUCK:
                occupant: Occupant | None = Occupant.STUCK
            case Occupant.RUN:
                occupant = Occupant.STUCK if lasts_s >= self._job_timeout_s else None
            case _:
                occupant = Occupant.FOREIGN if lasts_s >= FOREIGN_S else None
        return structs.replace(report, occupied_ms=since.at_ms, occupant=occupant)

    @property
    def undated(self) -> bool:
        return any(not since.at_ms for since in self._since.values())

    def date(self, now_ms: int) -> tuple[str, ...]:
        """It is `now_ms` by Redis' clock; the services to which that was new."""
        fresh = tuple(service for service, since in self._since.items() if not since.at_ms)
        for service in fresh:
            self._since[service] = structs.replace(self._since[service], at_ms=now_ms)
        return fresh


def _goes_on(before: ConnectorReport, now: ConnectorReport) -> bool:
    """Whether it is still the same. A stranger's prompts follow each other: they are one."""
    if before.occupant is not now.occupant:
        return False
    return now.occupant not in (Occupant.STUCK, Occupant.RUN) or before.occupied_by == now.occupied_by
