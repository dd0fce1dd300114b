"""Why a waiting job waits: for each worker what stands between it and the job, and one sentence of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, assert_never

from msgspec import Struct

from emp_orch.jobs.matching.offers import Offers
from emp_orch.jobs.matching.requirements import Requirements, unmet
from emp_orch.jobs.matching.workable import grouped, workers_in_words

MAX_DETAIL = 200
_NO_OFFERS: Mapping[str, Offers] = {}


class Candidate(Struct, frozen=True, kw_only=True):
    """A worker as it is now.

    `reported`: the capabilities of its report, None when there is none; then `known` says what the file tells, if
    anybody knows. `status` is a WorkerStatus; who judges that it fell silent says `offline`.
    `connectors`: the ConnectorStatus of each service; `details`: what the connector says of it; `unloaded`: why it did
    not load, of those that did not; `occupied`: what else a service is at, of those that are.
    """

    worker_id: str
    reported: dict[str, Any] | None = None
    known: dict[str, Any] | None = None
    status: str = ""
    current_job_id: str | None = None
    connectors: dict[str, str] = {}
    details: dict[str, str] = {}
    unloaded: dict[str, str] = {}
    occupied: dict[str, str] = {}


class Standing(StrEnum):
    """What a worker is to a job; all but `unable` and `silent` satisfy its requirements."""

    UNABLE = "unable"
    SILENT = "silent"  # no report yet; what is known of it fits
    OFFLINE = "offline"
    STOPPING = "stopping"
    DRAINING = "draining"
    PAUSED = "paused"
    ERROR = "error"
    SERVICE_DOWN = "service_down"
    OCCUPIED = "occupied"
    BUSY = "busy"
    STARTING = "starting"
    IDLE = "idle"


# Statuses of a worker that takes no job, whatever else it says.
_TAKES_NONE = {
    "offline": Standing.OFFLINE,
    "stopping": Standing.STOPPING,
    "draining": Standing.DRAINING,
    "paused": Standing.PAUSED,
    "error": Standing.ERROR,
}
_DOWN = frozenset({"error", "offline"})


class Explanation(Struct, frozen=True, kw_only=True):
    """`reasons`: the requirements that `worker_id` does not satisfy. `detail`: what its connector says."""

    worker_id: str
    standing: Standing
    service: str
    reasons: tuple[str, ...] = ()
    job_id: str | None = None
    detail: str = ""

    @property
    def words(self) -> str:
        """One line for a table."""
        match self.standing:
            case Standing.UNABLE:
                return "; ".join(self.reasons)
            case Standing.SILENT:
                return "may run it; it has not reported yet"
            case Standing.SERVICE_DOWN:
                return f"could run it; its service {self.service} does not answer{_said(self.detail)}"
            case Standing.OCCUPIED:
                return f"could run it; its service {self.service} is at{_said(self.detail)}".replace("at:", "at")
            case Standing.BUSY:
                return "could run it; it is busy" + (f" with job {self.job_id}" if self.job_id else "")
            case Standing.ERROR:
                return "could run it; it is in error"
            case Standing.OFFLINE | Standing.STOPPING | Standing.DRAINING | Standing.PAUSED:
                return f"could run it; it is {self.standing}"
            case Standing.STARTING | Standing.IDLE:
                return f"could run it; it is {self.standing}"
            case _:
                assert_never(self.standing)


def _said(detail: str) -> str:
    text = " ".join(detail.split())
    return f": {text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + '…'}" if text else ""


def _standing(service: str, worker: Candidate) -> Standing:
    """Of a worker that satisfies the requirements: the first that holds."""
    if worker.status in _TAKES_NONE:
        return _TAKES_NONE[worker.status]
    if worker.connectors.get(service) in _DOWN:
        return Standing.SERVICE_DOWN
    if worker.current_job_id is not None or worker.status == "busy":
        return Standing.BUSY
    if worker.occupied.get(service):
        return Standing.OCCUPIED
    if worker.status == "initializing" or worker.connectors.get(service) == "starting":
        return Standing.STARTING
    return Standing.IDLE


def explain(
    requirements: Requirements, workers: Sequence[Candidate], offers: Mapping[str, Offers] = _NO_OFFERS
) -> tuple[Explanation, ...]:
    """For each worker, in the order given: what it lacks, or else what it is doing. `offers`: as in `unmet`."""
    found = []
    for worker in workers:
        service = requirements.service
        if worker.reported is None:
            reasons = () if worker.known is None else unmet(requirements, worker.known, open_hardware=True)
            standing = Standing.UNABLE if reasons else Standing.SILENT
        else:
            reasons = unmet(requirements, worker.reported, unloaded=worker.unloaded, offers=offers)
            standing = Standing.UNABLE if reasons else _standing(service, worker)
        found.append(
            Explanation(
                worker_id=worker.worker_id,
                standing=standing,
                service=service,
                reasons=reasons,
                job_id=worker.current_job_id if standing is Standing.BUSY else None,
                detail=_detail(standing, worker, service),
            )
        )
    return tuple(found)


def _detail(standing: Standing, worker: Candidate, service: str) -> str:
    match standing:
        case Standing.SERVICE_DOWN:
            return worker.details.get(service, "")
        case Standing.OCCUPIED:
            return worker.occupied.get(service, "")
        case _:
            return ""


def _most_frequent(details: Sequence[str]) -> str:
    told = Counter(d for d in details if d)
    return _said(told.most_common(1)[0][0]) if told else ""


def _phrase(standing: Standing, count: int, down: str) -> str:
    match standing:
        case Standing.SERVICE_DOWN:
            return f"{count} whose {down}"
        case Standing.ERROR:
            return f"{count} in error"
        case _:
            return f"{count} {standing}"


def why_waiting(explanations: Sequence[Explanation]) -> str:
    """One sentence: why a pending job is not run, from what `explain` found."""
    if not explanations:
        return "no worker reports"
    able = [e for e in explanations if e.standing not in (Standing.UNABLE, Standing.SILENT)]
    silent = sum(e.standing is Standing.SILENT for e in explanations)
    if not able and silent:
        verb = "has" if silent == 1 else "have"
        return f"waits for {workers_in_words(silent)} that may run it and {verb} not reported yet"
    if not able:
        return f"no worker can run it: {grouped(('; '.join(e.reasons), [e.worker_id]) for e in explanations)}"
    counts = Counter(e.standing for e in able)
    total = workers_in_words(len(able))
    detail = _most_frequent([e.detail for e in able])
    if len(counts) == 1 and Standing.SERVICE_DOWN in counts:
        return f"its service {able[0].service} does not answer on {total}{detail}"
    if idle := counts[Standing.IDLE]:
        return f"waits to be claimed: {total} can run it, {idle} idle"
    if len(counts) == 1:
        (standing,) = counts
        each = "all " if len(able) > 1 else ""
        if standing is Standing.OCCUPIED:
            service = able[0].service
            return f"waits for capacity: {total} can run it, but {service} is at something else{detail}"
        return f"waits for capacity: {total} can run it, {each}{'in error' if standing is Standing.ERROR else standing}"
    down = f"{able[0].service} does not answer{detail}"
    # In the order of Standing, the one with a detail last: it may be long.
    order = [s for s in Standing if s is not Standing.SERVICE_DOWN] + [Standing.SERVICE_DOWN]
    parts = ", ".join(_phrase(s, counts[s], down) for s in order if counts[s])
    return f"waits for capacity: {total} can run it: {parts}"
