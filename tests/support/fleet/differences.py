"""What `emp status` and the doctor are given: a difference of one machine, and one drift."""

from __future__ import annotations

import msgspec

from emp_orch.control.status.inspect import Difference, DriftNow
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.drift.table import Desired, Drift, Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.limits import limits_of
from emp_orch.fleet.model.observed import (
    Observed,
    SeenWorker,
)
from support.http.stack import fleet_of

NOW = 1_000_000


def difference(*drift: DriftNow, workers: tuple[SeenWorker, ...] = (), **changes: object) -> Difference:
    fine = Difference(
        fleet="basic",
        generation=3,
        desired=Desired(
            generation=3,
            machines=desired_machines(fleet_of("box")),
            digests={},
            limits=limits_of(fleet_of("box").reconcile),
            stale_after_ms=10_000,
            max_unavailable=1,
            prune=False,
        ),
        observed=Observed(
            now_ms=NOW,
            observing_since_ms=0,
            machines={},
            workers={w.report.worker_id: w for w in workers},
            instances={},
        ),
        drift=drift,
        plan=(),
        leader="",
        paused="",
        status_age_ms=900,
        interval_ms=1_000,
    )
    return msgspec.structs.replace(fine, **changes)


def drift(kind: Kind, subject: str, age_ms: int | None = 12_000) -> DriftNow:
    return DriftNow(
        drift=Drift(
            kind=kind,
            machine_id=MachineId("box"),
            subject=subject,
            desired="RUNNING",
            observed="STOPPED",
            cause="it was stopped",
            origin="emp.yaml:9:3",
        ),
        age_ms=age_ms,
    )
