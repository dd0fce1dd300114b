"""A job as someone submits it: the one place where it is checked, for the API and the CLI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.errors import UsageError
from emp_orch.jobs.requirements import Requirements

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_REQUIREMENTS_BYTES = 64 * 1024
MAX_PRIORITY = 1_000_000
MAX_RETRIES = 100
DEFAULT_RETRIES = 3

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELDS = ("id", "service", "payload", "priority", "requirements", "max_retries")


class Submission(Struct, frozen=True, kw_only=True):
    """A checked job. `id` None: the queue's caller makes one; a given id makes submitting it twice harmless."""

    service: str
    payload: dict[str, Any]
    requirements: Requirements
    priority: int = 0
    max_retries: int = DEFAULT_RETRIES
    id: str | None = None


class BadSubmission(UsageError):
    """A job that cannot be accepted; `problems` holds every reason, each naming its field."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "the job was not accepted: " + "; ".join(problems), hint=f"a job has these fields: {', '.join(_FIELDS)}"
        )


def _integer(source: Mapping[str, Any], name: str, default: int, low: int, high: int, problems: list[str]) -> int:
    value = source.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        problems.append(f"{name}: expected a whole number from {low} to {high}, found {_shown(value)}")
        return default
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _payload(source: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    value = source.get("payload", {})
    if not isinstance(value, dict):
        problems.append(f"payload: expected an object, found {_shown(value)}")
        return {}
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as e:
        problems.append(f"payload: not JSON: {e}")
        return {}
    if size > MAX_PAYLOAD_BYTES:
        problems.append(f"payload: {size} bytes, at most {MAX_PAYLOAD_BYTES} are taken")
    return value


def _requirements(source: Mapping[str, Any], service: str, problems: list[str]) -> Requirements:
    value = source.get("requirements")
    if value is None:
        return Requirements(service=service)
    if not isinstance(value, dict):
        problems.append(f"requirements: expected an object, found {_shown(value)}")
        return Requirements(service=service)
    if value.get("service", service) != service:
        problems.append(f"requirements.service: {_shown(value['service'])} contradicts service {service!r}")
    try:
        size = len(msgspec.json.encode(value))
        made = msgspec.convert({**value, "service": service}, Requirements)
    except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as e:
        problems.append(f"requirements: {e}")
        return Requirements(service=service)
    if size > MAX_REQUIREMENTS_BYTES:
        problems.append(f"requirements: {size} bytes, at most {MAX_REQUIREMENTS_BYTES} are taken")
    return made


def parse_submission(source: object) -> Submission:
    """The job that `source` (decoded JSON) asks for. Raises BadSubmission with all problems at once."""
    if not isinstance(source, dict):
        raise BadSubmission([f"expected an object, found {_shown(source)}"])
    problems = [f"{name}: there is no such field" for name in source if name not in _FIELDS]
    service = source.get("service")
    if not isinstance(service, str) or not _SERVICE.fullmatch(service):
        found = "nothing" if service is None else _shown(service)
        problems.append(f"service: expected a service's name, found {found}")
        service = ""
    job_id = source.get("id")
    if job_id is not None and not (isinstance(job_id, str) and _ID.fullmatch(job_id)):
        problems.append(f"id: expected up to 128 of A-Z a-z 0-9 . _ -, found {_shown(job_id)}")
        job_id = None
    made = Submission(
        id=job_id,
        service=service,
        payload=_payload(source, problems),
        requirements=_requirements(source, service, problems),
        priority=_integer(source, "priority", 0, -MAX_PRIORITY, MAX_PRIORITY, problems),
        max_retries=_integer(source, "max_retries", DEFAULT_RETRIES, 0, MAX_RETRIES, problems),
    )
    if problems:
        raise BadSubmission(problems)
    return made
