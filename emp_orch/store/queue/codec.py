"""A job's two records in Redis, to and from typed values.

`jobs` holds `1 if the payload is kept apart, else 0|seq|priority|lane|created ms|` and a Document as JSON;
`job:{id}` holds what changed since. The history is put together from both: only what a later run overwrote is written
down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.errors import Damaged
from emp_orch.jobs.document.model import Crash, HistoryEntry, InputSource, Job, JobError, JobSummary, Progress, Result
from emp_orch.jobs.document.states import ENDED, HELD, JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs, both
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.redis.damaged import DAMAGED

# A larger payload is kept apart, so that lists need not read it.
PAYLOAD_INLINE = 4 * 1024

# What lists read of `job:{id}`: without the result, which can be large.
SUMMARY_FIELDS = (
    *("status", "runs", "assigned_ms", "started_ms", "finished_ms", "worker_id", "cancel", "progress", "error"),
    "needs",
)


class JobDamaged(Damaged):
    """A job's record in Redis does not fit its type: someone else wrote it, or another version of emp."""


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was submitted. Without `payload` when it is kept apart; of secrets the names."""

    service: str
    requirements: Requirements
    max_retries: int
    payload: dict[str, Any] | None = None
    inputs: dict[str, InputSource] = {}
    secrets: tuple[str, ...] = ()


class Position(Struct, frozen=True, kw_only=True):
    """Where a job stands: larger priorities first, then smaller sequence numbers."""

    seq: int
    priority: int
    lane: str
    created_ms: int
    apart: bool


class Stored(Struct, frozen=True, kw_only=True):
    """An entry of `jobs`."""

    position: Position
    document: Document

    def requirements(self, needs: str | None) -> Requirements:
        """Those of its lane: what was submitted, and what workers found since (`needs`, JSON)."""
        asked = self.document.requirements
        if not needs:
            return asked
        return msgspec.structs.replace(asked, needs=both(asked.needs, msgspec.json.decode(needs, type=Needs)))


_ERRORS = (*DAMAGED, ValueError)


def encoded(job: Submission) -> tuple[bytes, bytes, bytes]:
    """The document, the payload that is kept apart, and the secrets (b'' where there is no such thing).

    Its inputs are assets by now, or elsewhere.
    """
    if not job.is_ready:
        raise ValueError("a job brings files that no asset was made of: store/job_inputs does that")
    payload = msgspec.json.encode(job.payload)
    apart, empty = len(payload) > PAYLOAD_INLINE, payload == b"{}"
    document = Document(
        service=job.service,
        requirements=job.requirements,
        max_retries=job.max_retries,
        payload=None if apart or empty else cast(Any, msgspec.Raw(payload)),  # not encoded again
        inputs={name: given for name, given in job.inputs.items() if isinstance(given, InputSource)},
        secrets=job.secrets.names,
    )
    secrets = msgspec.json.encode(job.secrets.values) if job.secrets else b""
    return msgspec.json.encode(document), payload if apart else b"", secrets


def _damaged(job_id: str, cause: Exception) -> JobDamaged:
    return JobDamaged(f"job {job_id!r} in Redis is damaged: {cause}", hint="cancel it and submit it again")


_document = msgspec.json.Decoder(Document)


def _stored(text: str) -> Stored:
    apart, seq, priority, lane, created, document = text.split("|", 5)
    position = Position(seq=int(seq), priority=int(priority), lane=lane, created_ms=int(created), apart=apart == "1")
    return Stored(position=position, document=_document.decode(document))


def stored(job_id: str, text: str) -> Stored:
    """An entry of `jobs`. Raises JobDamaged."""
    try:
        return _stored(text)
    except _ERRORS as e:
        raise _damaged(job_id, e) from e


def position_of(text: str) -> Position | None:
    """The place alone; None when the entry is damaged."""
    try:
        apart, seq, priority, lane, created, _ = text.split("|", 5)
        return Position(seq=int(seq), priority=int(priority), lane=lane, created_ms=int(created), apart=apart == "1")
    except ValueError:
        return None


def _ms(text: str | None) -> int | None:
    return None if text is None else int(text)


def _summary_fields(
    job_id: str, entry: Stored, state: Mapping[str, str | None], unworkable: str | None
) -> dict[str, Any]:
    status = JobStatus(state.get("status") or "pending")
    error = None if (text := state.get("error")) is None else msgspec.json.decode(text, type=JobError)
    if status is JobStatus.PENDING and unworkable is not None:
        status, error = JobStatus.UNWORKABLE, JobError(message=unworkable)
    said = state.get("progress")
    progress = None if said is None else msgspec.json.decode(said, type=Progress)
    if status is JobStatus.COMPLETED:
        progress = Progress(fraction=1.0)
    return {
        "id": job_id,
        "service": entry.document.service,
        "status": status,
        "priority": entry.position.priority,
        "requirements": entry.requirements(state.get("needs")),
        "lane": entry.position.lane,
        "attempts": int(state.get("runs") or 0) + (state.get("assigned_ms") is not None),
        "max_retries": entry.document.max_retries,
        "created_ms": entry.position.created_ms,
        "assigned_ms": _ms(state.get("assigned_ms")),
        "started_ms": _ms(state.get("started_ms")),
        "finished_ms": _ms(state.get("finished_ms")),
        "worker_id": state.get("worker_id"),
        "cancel_requested": state.get("cancel") is not None and status in HELD,
        "progress": progress,
        "error": error,
    }


def summary_from(job_id: str, text: str, state: Sequence[str | None], unworkable: Mapping[str, str]) -> JobSummary:
    """The summary of an entry of `jobs` and SUMMARY_FIELDS' values. Raises JobDamaged."""
    try:
        entry = _stored(text)
        fields = dict(zip(SUMMARY_FIELDS, state, strict=True))
        return JobSummary(**_summary_fields(job_id, entry, fields, unworkable.get(entry.position.lane)))
    except _ERRORS as e:
        raise _damaged(job_id, e) from e


def _history(entry: Stored, state: Mapping[str, str], status: JobStatus) -> tuple[HistoryEntry, ...]:
    found = [HistoryEntry(at_ms=entry.position.created_ms, event="job_submitted")]
    # Not splitlines: what people and services say may hold other separators of lines, which JSON leaves as they are.
    lines = state.get("history", "").split("\n")
    found += [msgspec.json.decode(line, type=HistoryEntry) for line in lines if line]
    worker = state.get("worker_id", "")
    if "assigned_ms" in state:
        found.append(HistoryEntry(at_ms=int(state["assigned_ms"]), event="job_assigned", worker_id=worker))
    if "cancel" in state:
        why = state.get("cancel_reason", "")
        at_ms = int(state["cancel"])
        found.append(HistoryEntry(at_ms=at_ms, event="job_cancel_requested", worker_id=worker, reason=why))
    if status in ENDED and "finished_ms" in state:
        why = state.get("reason", "")
        at_ms = int(state["finished_ms"])
        found.append(HistoryEntry(at_ms=at_ms, event=f"job_{status}", worker_id=worker, reason=why))
    return tuple(found)


def _payload(document: Document, apart: str | None) -> dict[str, Any]:
    if apart is not None:
        return msgspec.json.decode(apart, type=dict[str, Any])
    return document.payload or {}


def _crashes(text: str | None) -> tuple[Crash, ...]:
    return msgspec.json.decode(text, type=tuple[Crash, ...]) if text else ()


def job_from(job_id: str, text: str, state: Mapping[str, str], payload: str | None, unworkable: str | None) -> Job:
    """The whole job. `payload`: the one kept apart, if there is one. Raises JobDamaged."""
    try:
        entry = _stored(text)
        fields = _summary_fields(job_id, entry, state, unworkable)
        result = state.get("result")
        return Job(
            **fields,
            payload=_payload(entry.document, payload),
            inputs=entry.document.inputs,
            secrets=entry.document.secrets,
            result=None if result is None else msgspec.json.decode(result, type=Result),
            history=_history(entry, state, fields["status"]),
            crashes=_crashes(state.get("crashes")),
        )
    except _ERRORS as e:
        raise _damaged(job_id, e) from e


def claimed(
    job_id: str,
    text: str,
    *,
    attempts: int,
    assigned_ms: int,
    error: str,
    payload: str,
    worker_id: str,
    needs: str,
    crashes: str = "",
) -> Job:
    """A job as its claim answers it: assigned, without its history. Raises JobDamaged."""
    try:
        entry = _stored(text)
        return Job(
            id=job_id,
            service=entry.document.service,
            status=JobStatus.ASSIGNED,
            priority=entry.position.priority,
            requirements=entry.requirements(needs),
            lane=entry.position.lane,
            attempts=attempts,
            max_retries=entry.document.max_retries,
            created_ms=entry.position.created_ms,
            assigned_ms=assigned_ms,
            worker_id=worker_id,
            error=msgspec.json.decode(error, type=JobError) if error else None,
            payload=_payload(entry.document, payload or None),
            secrets=entry.document.secrets,
            crashes=_crashes(crashes),
            inputs=entry.document.inputs,
        )
    except _ERRORS as e:
        raise _damaged(job_id, e) from e
