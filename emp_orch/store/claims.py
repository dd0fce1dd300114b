"""The queue as one worker sees it: claim or wait, then hold the lease, report, and end the job.

Every write is fenced by the lease's token: after the lease was lost, nothing this worker says changes the job.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.jobs.model import Job, JobError, Progress, Result
from emp_orch.jobs.requirements import Requirements, unmet
from emp_orch.jobs.retry import Cause, End, Requeue, decide
from emp_orch.jobs.states import JobStatus
from emp_orch.store.connect import ANSWER_S, Client, within
from emp_orch.store.job_codec import JobDamaged, job_from
from emp_orch.store.keys import Keys
from emp_orch.store.queue import AVOID_MS, Scripts

# An idle worker comes back this often: that is its whole cost to Redis beside the heartbeat.
WAIT_S = 20.0

# History and events keep this much of an error's words; the error itself is whole.
MAX_REASON = 500

_CANCEL = "cancel:"


class Claimed(Struct, frozen=True, kw_only=True):
    """`token` proves the lease in every later call."""

    job: Job
    token: str


class Waiting(Struct, frozen=True, kw_only=True):
    """Nothing to do: the worker is registered as waiting; call `wait` for at most this long, then claim again."""

    seconds: float


class Lease(StrEnum):
    """What a holder hears: its lease stands; it stands and the job is to be stopped; it is lost."""

    OK = "ok"
    CANCEL = "cancel"
    LOST = "lost"


class Claims:
    """One worker's dealings with the queue. Everything raises what redis-py raises when Redis is away."""

    def __init__(self, r: Client, keys: Keys, worker_id: str, *, lease_s: float) -> None:
        self._r = r
        self._keys = keys
        self._worker_id = worker_id
        self._lease_ms = int(lease_s * 1000)
        self._scripts = Scripts(r, keys)
        self._version = ""
        self._lanes: dict[str, Requirements] = {}
        self._served: list[str] = []
        self._served_for: bytes | None = None

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting:
        """The best job over all lanes that `capabilities` satisfy, or a place among those who wait."""
        while True:
            served = self._serve(capabilities)
            group = hashlib.sha256("".join(served).encode()).hexdigest()[:16]
            token = secrets.token_hex(8)
            args: list[Any] = [
                self._worker_id,
                self._version,
                group,
                token,
                self._lease_ms,
                int(WAIT_S * 1000),
                *served,
            ]
            answer = cast(list[Any], await self._scripts.claim(args=args))
            match answer[0]:
                case "stale":
                    await self._read_lanes()
                case "wait":
                    return Waiting(seconds=int(answer[1]) / 1000)
                case _:
                    fields = dict(zip(answer[1::2], answer[2::2], strict=True))
                    try:
                        return Claimed(job=job_from(fields), token=token)
                    except JobDamaged as e:
                        await self._end(fields["id"], token, JobStatus.FAILED, error=JobError(message=e.message))

    async def wait(self, seconds: float) -> str | None:
        """Block until someone wakes this worker, at most `seconds`."""
        seconds = max(seconds, 0.01)  # Redis reads 0 as "for ever"
        async with within(seconds + ANSWER_S):
            answer = cast(list[str] | None, await self._r.blpop([self._keys.wake(self._worker_id)], seconds))
        return None if answer is None else answer[1]

    async def cancel_notice(self, job_id: str) -> None:
        """Return when the cancellation of `job_id`, which this worker runs, was asked for."""
        while await self.wait(WAIT_S) != _CANCEL + job_id:
            pass

    async def renew(self, claim: Claimed) -> Lease:
        return Lease(await self._scripts.renew(args=[claim.job.id, claim.token, self._lease_ms]))

    async def progress(self, claim: Claimed, progress: Progress) -> Lease:
        """Publish progress; the first makes the job `in_progress`."""
        return Lease(await self._scripts.progress(args=[claim.job.id, claim.token, msgspec.json.encode(progress)]))

    async def completed(self, claim: Claimed, result: Result) -> JobStatus | None:
        """Record the end with its result. None: the lease was lost, nothing was recorded."""
        return await self._end(claim.job.id, claim.token, JobStatus.COMPLETED, result=result)

    async def cancelled(self, claim: Claimed) -> JobStatus | None:
        """Record that the run was stopped because someone asked for it. None as above."""
        return await self._end(claim.job.id, claim.token, JobStatus.CANCELLED)

    async def not_completed(self, claim: Claimed, cause: Cause, error: JobError) -> JobStatus | None:
        """Record a run without a result; the job ends or goes back into its lane. The status it got, None as above."""
        job = claim.job
        step = decide(
            cause=cause,
            retryable=error.retryable,
            attempts=job.attempts,
            max_retries=job.max_retries,
            cancelled=False,  # the script knows, and looks in the same instant
        )
        match step:
            case End(status=status):
                return await self._end(job.id, claim.token, status, error=error)
            case Requeue(counts=counts):
                shown = error if counts else None
                return await self._end(
                    job.id, claim.token, JobStatus.PENDING, error=shown, reason=error.message, uncounted=not counts
                )

    async def leave(self) -> None:
        """This worker claims no more: it waits nowhere, and a wake on its way goes to another."""
        await self._scripts.leave(args=[self._worker_id])

    async def _end(
        self,
        job_id: str,
        token: str,
        verdict: JobStatus,
        *,
        result: Result | None = None,
        error: JobError | None = None,
        reason: str = "",
        uncounted: bool = False,
    ) -> JobStatus | None:
        args: list[Any] = [
            *(job_id, token, verdict),
            b"" if result is None else msgspec.json.encode(result),
            b"" if error is None else msgspec.json.encode(error),
            (reason or (error.message if error else ""))[:MAX_REASON],
            AVOID_MS if verdict is JobStatus.PENDING else 0,
            "1" if uncounted else "0",
            "0",
        ]
        status = await self._scripts.end(args=args)
        return None if status == Lease.LOST else JobStatus(status)

    async def _read_lanes(self) -> None:
        answer = cast(list[str], await self._scripts.lanes())
        self._version = answer[0]
        self._served_for = None
        self._lanes = {}
        for sig, text in zip(answer[1::2], answer[2::2], strict=True):
            try:
                self._lanes[sig] = msgspec.json.decode(text, type=Requirements)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue  # a lane of another version of emp: not for this worker

    def _serve(self, capabilities: Mapping[str, Any]) -> list[str]:
        """The lanes that `capabilities` satisfy, computed again only when either changed."""
        text = msgspec.json.encode(capabilities, order="deterministic")
        if text != self._served_for:
            self._served = sorted(sig for sig, r in self._lanes.items() if not unmet(r, capabilities))
            self._served_for = text
        return self._served
