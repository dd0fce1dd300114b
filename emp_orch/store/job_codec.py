"""A job's hash in Redis, decoded into typed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from emp_orch.errors import EmpError
from emp_orch.jobs.model import Job, JobSummary

# The fields whose text is JSON; all others are plain text or whole numbers.
_JSON = frozenset({"requirements", "progress", "error", "payload", "result"})
_INTERNAL = frozenset({"seq", "token"})
# In the order in which lists read them: without payload, result and history, which can be large.
SUMMARY_FIELDS = (
    *("id", "service", "status", "priority", "requirements", "lane", "attempts", "max_retries", "created_ms"),
    *("assigned_ms", "started_ms", "finished_ms", "worker_id", "cancel", "progress", "error"),
)


class JobDamaged(EmpError):
    """A job's record in Redis does not fit its type: someone else wrote it, or another version of emp."""


def _loose(fields: Mapping[str, str | None]) -> dict[str, Any]:
    loose: dict[str, Any] = {}
    for name, text in fields.items():
        if text is None or name in _INTERNAL:
            continue
        if name in _JSON:
            loose[name] = msgspec.json.decode(text)
        elif name == "history":
            loose[name] = msgspec.json.decode(f"[{text}]")
        elif name == "cancel":
            loose["cancel_requested"] = True
        else:
            loose[name] = text
    return loose


def job_from(fields: Mapping[str, str]) -> Job:
    """The job of a whole hash. Raises JobDamaged."""
    try:
        return msgspec.convert(_loose(fields), Job, strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise JobDamaged(
            f"job {fields.get('id')!r} in Redis is damaged: {e}", hint="cancel it and submit it again"
        ) from e


def summary_from(values: list[str | None]) -> JobSummary:
    """The summary of SUMMARY_FIELDS' values. Raises JobDamaged."""
    fields = dict(zip(SUMMARY_FIELDS, values, strict=True))
    try:
        return msgspec.convert(_loose(fields), JobSummary, strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise JobDamaged(
            f"job {fields.get('id')!r} in Redis is damaged: {e}", hint="cancel it and submit it again"
        ) from e
