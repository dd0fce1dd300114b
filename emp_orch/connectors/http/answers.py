"""What a REST service's answers mean: fields of JSON, failures in its own words, when to come back. No I/O."""

from __future__ import annotations

import email.utils
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED, RunFailed
from emp_orch.jobs.document.model import Job
from emp_orch.options.http import Options

# Answers below 500 after which the same request may succeed: a slow client, too early, too many requests.
_RETRYABLE = frozenset({408, 425, 429})
_WORDS = ("error", "message", "detail", "details", "errors", "reason", "title")
_MAX_SHOWN = 500


class Phase(StrEnum):
    RUNS = "runs"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # on somebody's request
    UNKNOWN = "unknown"  # the service does not know the run


class Look(Struct, frozen=True, kw_only=True):
    """What one answer says of a run. `word`: its status as the service calls it; `wait_s`: when to look again."""

    phase: Phase
    word: str = ""
    fraction: float = 0.0
    wait_s: float = 0.0
    answer: Any = None
    error: RunFailed | None = None


def look_at(answer: Any, options: Options, *, judge: bool) -> Look:
    """`answer` by the options' status words. `judge` False: there are none, and only `success: false` is a failure.

    Raises RunFailed when the status is missing.
    """
    word = pick(answer, options.status_field or "") if judge else None
    if word is None:
        if no := failure(answer, options.error_field):
            return Look(phase=Phase.FAILED, answer=answer, error=no)
        if judge:
            words = (
                f"the service's answer has no status at {options.status_field}: {_shown(msgspec.json.encode(answer))}"
            )
            raise RunFailed(words, retryable=False)
        return Look(phase=Phase.DONE, answer=answer)
    word = as_word(word)
    phases = ((Phase.DONE, options.done), (Phase.FAILED, options.failed), (Phase.STOPPED, options.cancelled))
    phase = next((p for p, words in phases if word in map(as_word, words)), Phase.RUNS)
    if phase is Phase.DONE and says_no(answer):
        phase = Phase.FAILED
    error = None
    if phase is Phase.FAILED:
        words = words_of(answer, options.error_field) or f"the service says {word}"
        error = RunFailed(words, retryable=False, detail=answer if isinstance(answer, dict) else {})
    value = pick(answer, options.progress_field) if options.progress_field else None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    fraction = min(max(number, 0), options.progress_max) / options.progress_max  # it may be too large to divide
    return Look(phase=phase, word=word, fraction=fraction, answer=answer, error=error)


def failure(answer: Any, error_field: str | None) -> RunFailed | None:
    """The failure that a well-formed answer tells of by `success: false`."""
    if not says_no(answer):
        return None
    return RunFailed(words_of(answer, error_field) or "the service says success: false", retryable=False, detail=answer)


def pick(value: Any, field: str) -> Any:
    """What stands at `field` (`a.b.0`, or a JSON pointer `/a/b/0`); None when nothing does."""
    if field.startswith("/"):
        steps = [s.replace("~1", "/").replace("~0", "~") for s in field[1:].split("/")]
    else:
        steps = field.split(".")
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def body_for(template: Any, job: Job) -> Any:
    """`template` with `$payload`, `$payload.FIELD` and `$job_id` filled in. Raises RunFailed for a missing field."""
    match template:
        case "$payload":
            return job.payload
        case "$job_id":
            return job.id
        case str() if template.startswith("$payload."):
            field = template.removeprefix("$payload.")
            value = pick(job.payload, field)
            if value is None:
                raise RunFailed(f"the payload lacks {field!r}", retryable=False)
            return value
        case dict():
            return {k: body_for(v, job) for k, v in template.items()}
        case list():
            return [body_for(v, job) for v in template]
        case _:
            return template


def json_of(body: bytes) -> Any:
    """`body` as JSON. Raises RunFailed."""
    try:
        return msgspec.json.decode(body)
    except MALFORMED as e:
        raise RunFailed(f"the service's answer is not JSON: {e}: {_shown(body)}", retryable=False) from e


def refusal(status: int, body: bytes, error_field: str | None) -> RunFailed:
    """The failure that an answer with `status` tells of, in the service's own words."""
    try:
        value = msgspec.json.decode(body)
    except MALFORMED:
        value = None
    words = words_of(value, error_field) or _shown(body)
    detail = {"status": status, "answer": value} if isinstance(value, dict) else {"status": status}
    retryable = status >= 500 or status in _RETRYABLE
    text = f"the service answered {status}: {words}" if words else f"the service answered {status}"
    return RunFailed(text, retryable=retryable, detail=detail)


def words_of(value: Any, error_field: str | None) -> str:
    """What `value` says went wrong: at `error_field`, or where services usually say it; empty when nowhere."""
    if error_field is not None and (found := pick(value, error_field)):
        return _text(found)
    if isinstance(value, dict):
        for name in _WORDS:
            if found := value.get(name):
                return words_of(found, None) or _text(found)
    return value if isinstance(value, str) else ""


def says_no(value: Any) -> bool:
    """Whether an answer says of itself that it is no success, whatever its status code."""
    return isinstance(value, dict) and value.get("success") is False


def as_word(value: Any) -> str:
    """A status as it is compared: without case, `true` for JSON's true."""
    return value.casefold() if isinstance(value, str) else _text(value)


def seconds_to_wait(retry_after: str | None, now_s: float) -> float | None:
    """A Retry-After header (seconds, or a date) as seconds from `now_s` (Unix time); None when it says nothing."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(at.timestamp() - now_s, 0.0)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _shown(body: bytes) -> str:
    return body[:_MAX_SHOWN].decode(errors="replace").strip()
