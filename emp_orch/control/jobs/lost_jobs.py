"""Jobs whose worker was lost: what finished anyway is kept, the rest runs again or fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from emp_orch.connectors import sanitise
from emp_orch.connectors.base import Connector, Recovers, Run, RunFailed, StillRuns
from emp_orch.connectors.registry import load
from emp_orch.connectors.secrecy import kept_out_of_the_log
from emp_orch.fleet.desired.machines import inherited
from emp_orch.fleet.desired.workers import binding_of, machine_of_worker
from emp_orch.fleet.model.fleet import Fleet, SecretRef
from emp_orch.jobs.document.model import JobError, Progress, Result
from emp_orch.jobs.document.secrets import MIN_CHARS, Redaction
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.options.base import CannotLoad
from emp_orch.options.http import from_environment
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotStore
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.queue.claim import RunRef
from emp_orch.store.queue.upkeep.reaper import Expired, Reaper
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

# How long a service may take to say what became of a run, its outputs included.
ASK_S = 30.0
INTERRUPT_EVERY_S = 0.5

# Raises NotLeader when another may lead, who then cares for lost jobs.
Still = Callable[[], None]


class LostJobs:
    """Sweeps, and asks services beside the loop: one that hangs delays its own jobs only."""

    def __init__(
        self,
        r: Client,
        keys: Keys,
        artifacts: Artifacts,
        group: asyncio.TaskGroup,
        secrets: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._reaper = Reaper(r, keys)
        self._artifacts = artifacts
        self._group = group
        self._secrets = secrets
        self._asking: set[str] = set()

    async def sweep(self, fleet: Fleet | None, *, still: Still, connected_ms: int) -> None:
        """Deal with every lease that is over, while `still` says that we lead: it is asked before each step.

        `connected_ms`: for how long Redis can be reached. Workers that could not reach it get the time of one lease
        to renew theirs, or to bring what they finished meanwhile.
        """
        lease_ms = int(fleet.jobs.lease_s * 1000) if fleet else 0
        grace_ms = 0 if connected_ms >= lease_ms else lease_ms
        for lost in await self._reaper.expired(grace_ms=grace_ms):
            if lost.job_id in self._asking:
                continue
            if fleet is not None and lost.run is not None and lost.claim is not None and _to_be_asked(fleet, lost):
                self._asking.add(lost.job_id)
                self._group.create_task(self._ask(fleet, lost, lost.run, still), name=f"ask about {lost.job_id}")
            else:
                await self._end(lost, still)

    async def _end(self, lost: Expired, still: Still) -> None:
        still()
        _say(lost, await self._reaper.end(lost))

    async def _ask(self, fleet: Fleet, lost: Expired, ref: RunRef, still: Still) -> None:
        try:
            told = {n: v for n, v in self._headers(fleet, lost).items() if len(v) >= MIN_CHARS}
            redaction = Redaction({**told, **(await self._reaper.secrets(lost)).values})
            with kept_out_of_the_log(redaction):
                status = await self._asked(fleet, await self._reaper.whole(lost), ref, still, redaction)
            _say(lost, status)
        except NotLeader as e:
            log.warning("job %s: %s", lost.job_id, e.message)
        except TRANSIENT as e:
            log.warning("job %s: %s", lost.job_id, e)
        except Exception:  # nobody foresaw it: it costs this look at one job, and the next sweep asks again
            log.exception("job %s: nobody can tell what became of its run", lost.job_id)
        finally:
            self._asking.discard(lost.job_id)

    async def _asked(
        self, fleet: Fleet, lost: Expired, ref: RunRef, still: Still, redaction: Redaction
    ) -> JobStatus | None:
        """End the job by what its service says of the run, without the job's secrets."""
        try:
            async with asyncio.timeout(ASK_S):
                result = await self._recovered(fleet, lost, ref, still)
        except StillRuns:
            still()
            await self._reaper.extend(lost, fleet.jobs.lease_s)
            return None
        except RunFailed as e:
            still()
            if (limit_s := _overdue_s(fleet, lost)) is not None:
                words = f"it ran longer than {limit_s:g} s, and worker {lost.worker_id} was lost"
                return await self._reaper.failed(lost, JobError(message=words, retryable=True), Cause.TIMEOUT)
            return await self._reaper.failed(lost, redaction.error(sanitise.error_of(e.error)))
        except NotLeader:
            raise
        except (CannotLoad, CannotStore, TimeoutError) as e:
            log.warning("job %s: cannot learn what became of its run: %s", lost.job_id, e or "no answer in time")
            result = None
        except Exception:  # a faulty connector costs a run, not the reconciler
            log.exception("job %s: connector %s failed to say what became of its run", lost.job_id, ref.connector)
            result = None
        still()
        if result is None:
            return await self._reaper.end(lost)
        if fault := sanitise.fault_of(result):
            return await self._reaper.failed(
                lost, redaction.error(JobError(message=f"connector {ref.connector}: {fault}"))
            )
        return await self._reaper.kept(lost, redaction.result(result))

    async def _recovered(self, fleet: Fleet, lost: Expired, ref: RunRef, still: Still) -> Result | None:
        if lost.claim is None:
            return None
        job = lost.claim.job
        service = fleet.services.get(job.service)  # type: ignore[call-overload]  # a name from a job
        options = service.connector_options if service else {}
        if headers := self._headers(fleet, lost):
            options = {**options, "headers": {**options["headers"], **headers}}
        connector: Connector = load(ref.connector, ref.url, options)
        try:
            if not isinstance(connector, Recovers):
                return None
            sink = self._artifacts.run(job.id, f"{lost.claim.run}-kept")
            run = Run(job=job, sink=sink, on_progress=_unheard, on_began=_unheard)
            if lost.cancel_requested or _overdue_s(fleet, lost) is not None:
                return await _stopped(connector, connector.recover(run, ref.ref, wait=True), still)
            return await connector.recover(run, ref.ref, wait=False)
        finally:
            await connector.close()

    def _headers(self, fleet: Fleet, lost: Expired) -> dict[str, str]:
        """Headers that the lost worker had from its environment, by what emp.yaml gives that; ours has none of it."""
        machine = machine_of_worker(fleet, lost.worker_id)
        service = fleet.services.get(lost.claim.job.service) if lost.claim else None  # type: ignore[call-overload]
        if machine is None or service is None or service.connector != "http":
            return {}
        held = self._secrets()
        given = {**inherited(machine.inherit), **machine.env}
        values = {name: held.get(v.key) if isinstance(v, SecretRef) else v for name, v in given.items()}
        return from_environment(service.connector_options, {n: v for n, v in values.items() if v is not None})


async def _stopped(connector: Connector, following: Coroutine[Any, Any, Result | None], still: Still) -> Result | None:
    """What `following` gives while the run is interrupted; its service may take until it listens."""
    task = asyncio.create_task(following, name="follow to the end")
    try:
        while not task.done():
            still()
            await connector.cancel()
            await asyncio.wait([task], timeout=INTERRUPT_EVERY_S)
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _unheard(_: Progress | str) -> None:
    """Nobody holds this run: its progress is not told."""


def _to_be_asked(fleet: Fleet, lost: Expired) -> bool:
    """A worker names its service as it sees it; only on this very host does that name the same.

    What stands in Redis is anybody's word: whom we ask, and by which connector, only emp.yaml says.
    """
    machine = machine_of_worker(fleet, lost.worker_id)
    if machine is None or not machine.traits.shares_host or lost.run is None or lost.claim is None:
        return False
    if (lost.run.connector, lost.run.url) == binding_of(fleet, lost.worker_id, lost.claim.job.service):
        return True
    log.warning("job %s: its run is said to be where %s has no service: nobody is asked", lost.job_id, lost.worker_id)
    return False


def _overdue_s(fleet: Fleet, lost: Expired) -> float | None:
    """The time that a run may take, when this one took longer; its worker would have stopped it."""
    machine = machine_of_worker(fleet, lost.worker_id)
    if machine is None or lost.ran_ms <= machine.worker.job_timeout_s * 1000:
        return None
    return machine.worker.job_timeout_s


def _say(lost: Expired, status: JobStatus | None) -> None:
    if status is not None:
        log.warning("job %s: worker %s was lost, the job is %s", lost.job_id, lost.worker_id, status)
