"""Jobs as someone submits them: the one place where they are checked, for the API and the CLI."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.errors import UsageError
from emp_orch.jobs.document.inputs import MAX_INLINE_BYTES, Content, GivenInput, LocalFile, inputs_of
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.workflows import Services, taken
from emp_orch.jobs.matching.capability import shown
from emp_orch.jobs.matching.requirements import HARDWARE_ALIASES, Requirements

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_REQUIREMENTS_BYTES = 64 * 1024
# A job with the largest payload and inputs (as base64) that are taken, and room for its other fields.
MAX_JOB_BYTES = MAX_PAYLOAD_BYTES + MAX_INLINE_BYTES // 3 * 4 + 128 * 1024
# Decoders stop at about 1,000, less what their caller stands deep: every reader must be able to read it.
MAX_PAYLOAD_DEPTH = 128
# How deep lists and objects may stand in each other in what a job asks for.
MAX_DEPTH = 16
MAX_PRIORITY = 1_000_000
MAX_RETRIES = 100
DEFAULT_RETRIES = 3
MAX_KEY = 256
MAX_BATCH = 10_000
MAX_PROBLEMS = 50

JOB_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
SERVICE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_ID = re.compile(JOB_ID)
_SERVICE = re.compile(SERVICE_NAME)
_NONE = "no job was accepted"
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # as signed bytes: one deeper, one less deep
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_FIELDS = ("id", "idempotency_key", "service", "payload", "inputs", "priority", "requirements", "max_retries")
_KNOWN = frozenset(_FIELDS)
_UNKNOWN_SERVICES = Services()
# msgspec's messages: "Expected `int`, got `str` - at `$.hardware.gpu_count`".
_AT = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class Submission(Struct, frozen=True, kw_only=True):
    """A checked job. `id` None: the queue's caller makes one; a given id makes submitting it twice harmless.

    Submissions that ask the same in the same words share one `requirements` object. `payload` as Raw is its JSON.
    `secrets` were taken out of it. What `inputs` bring with them becomes an asset before the job is queued
    (store/artifacts/job_inputs).
    """

    service: str
    payload: dict[str, Any] | msgspec.Raw
    requirements: Requirements
    priority: int = 0
    max_retries: int = DEFAULT_RETRIES
    id: str | None = None
    secrets: Secrets = Secrets()
    inputs: dict[str, GivenInput] = {}

    @property
    def is_ready(self) -> bool:
        """Whether it brings no content that is to become an asset first."""
        return not any(isinstance(given, Content | LocalFile) for given in self.inputs.values())


class BadSubmission(UsageError):
    """What cannot be accepted, whole: `problems` holds the reasons, each naming its field (and its job)."""

    def __init__(self, problems: list[str], *, what: str = "the job was not accepted") -> None:
        self.problems = tuple(problems)
        super().__init__(f"{what}: {'; '.join(problems)}", hint=f"a job has these fields: {', '.join(_FIELDS)}")


def id_of_key(key: str, *, customer: str | None = None) -> str:
    """The id of the job with this idempotency key; customers' keys are apart."""
    text = key if customer is None else f"{customer}\0{key}"
    return f"key-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _integer(source: Mapping[str, Any], name: str, default: int, low: int, high: int, problems: list[str]) -> int:
    value = source.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        problems.append(f"{name}: expected a whole number from {low} to {high}, found {shown(value)}")
        return default
    return value


def _service(source: Mapping[str, Any], problems: list[str]) -> str:
    value = source.get("service")
    if isinstance(value, str) and _SERVICE.fullmatch(value):
        return value
    found = "nothing" if value is None else shown(value)
    problems.append(f"service: expected a service's name, found {found}")
    return ""


def _payload(
    source: Mapping[str, Any], service: str, services: Services, problems: list[str], *, packed: bool
) -> tuple[dict[str, Any] | msgspec.Raw, Secrets]:
    asked = taken(source.get("payload", {}), service, services)
    if isinstance(asked, list):
        problems += asked
        return {}, Secrets()
    value = asked.payload
    if not value:
        return value, asked.secrets
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as e:
        problems.append(f"payload: not JSON: {e}")
        return {}, Secrets()
    if len(text) > MAX_PAYLOAD_BYTES:
        problems.append(f"payload: {len(text)} bytes, at most {MAX_PAYLOAD_BYTES} are taken")
    elif _is_deeper(text, MAX_PAYLOAD_DEPTH):
        problems.append(f"payload: nested more than {MAX_PAYLOAD_DEPTH} deep")
    return msgspec.Raw(text) if packed else value, asked.secrets


def _is_deeper(text: bytes, limit: int) -> bool:
    """Whether lists and objects stand more than `limit` deep in each other in JSON; quick also where it is large."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    steps = array("b", _STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps)) > limit


def _in_words(error: msgspec.ValidationError) -> str:
    """A mismatch that msgspec found in requirements, with the path first as everywhere else."""
    match = _AT.fullmatch(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    if unknown := _UNKNOWN.fullmatch(what):
        return f"requirements{path}.{_field(unknown[1])}: there is no such field"
    if what.startswith("isolation: "):
        return f"requirements.{what}"
    if "matching regex" in what:
        what = "expected a name without control characters"
    if match and match["key"]:
        what = f"{what} for a key"
    return f"requirements{path}: {what.replace('`', '').replace('Expected', 'expected').replace('Invalid', 'invalid')}"


def _depth(value: object, limit: int) -> int:
    """How deep lists and objects stand in each other; `limit` when it is that or more."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if inner is None or limit <= 0:
        return 0
    return 1 + max((_depth(item, limit - 1) for item in inner), default=0)


def _without_aliases(asked: dict[str, Any]) -> dict[str, Any]:
    """`asked` with the first names of its hardware minimums. Raises ValueError when both names are there."""
    hardware = asked.get("hardware")
    if not isinstance(hardware, dict) or HARDWARE_ALIASES.keys().isdisjoint(hardware):
        return asked
    for alias, name in HARDWARE_ALIASES.items():
        if alias in hardware and name in hardware:
            raise ValueError(f"requirements.hardware: {alias} and {name} are the same; give one")
    return {**asked, "hardware": {HARDWARE_ALIASES.get(name, name): value for name, value in hardware.items()}}


def _read_requirements(service: str, text: bytes) -> Requirements | str:
    """Requirements from their JSON, or what is wrong with them."""
    asked: dict[str, Any] = msgspec.json.decode(text)
    named = asked.get("service", service)
    if named != service:
        return f"requirements.service: {shown(named)} contradicts service {service!r}"
    if _depth(asked, MAX_DEPTH + 1) > MAX_DEPTH:
        return f"requirements: nested more than {MAX_DEPTH} deep"
    try:
        return msgspec.convert({**_without_aliases(asked), "service": service}, Requirements)
    except msgspec.ValidationError as e:
        return _in_words(e)
    except ValueError as e:
        return str(e)


# Jobs ask for a few things many times; what is asked in many words is read each time.
_remembered = lru_cache(maxsize=1024)(_read_requirements)
_MAX_REMEMBERED = 4096


def _requirements(source: Mapping[str, Any], service: str, problems: list[str]) -> Requirements:
    value = source.get("requirements")
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"requirements: expected an object, found {shown(value)}")
        return Requirements(service=service)
    try:
        text = msgspec.json.encode(value)
        if len(text) > MAX_REQUIREMENTS_BYTES:
            read: Requirements | str = f"requirements: {len(text)} bytes, at most {MAX_REQUIREMENTS_BYTES} are taken"
        else:
            read = (_remembered if len(text) <= _MAX_REMEMBERED else _read_requirements)(service, text)
    except (TypeError, ValueError, RecursionError) as e:
        read = f"requirements: not JSON: {e}"
    if isinstance(read, str):
        problems.append(read)
        return Requirements(service=service)
    return read


def _job_id(source: Mapping[str, Any], customer: str | None, problems: list[str]) -> str | None:
    job_id, key = source.get("id"), source.get("idempotency_key")
    if job_id is not None and not (isinstance(job_id, str) and _ID.fullmatch(job_id)):
        problems.append(f"id: expected up to 128 of A-Z a-z 0-9 . _ -, found {shown(job_id)}")
    if key is None:
        return job_id
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        problems.append(f"idempotency_key: expected 1 to {MAX_KEY} printable characters, found {shown(key)}")
        return None
    if job_id is not None:
        problems.append("idempotency_key: the id is made from it, so give one of the two")
    return id_of_key(key, customer=customer)


def _check(source: object, services: Services, *, packed: bool = False, files: bool = False) -> Submission | list[str]:
    if not isinstance(source, dict):
        return [f"expected an object, found {shown(source)}"]
    problems: list[str] = []
    if not source.keys() <= _KNOWN:
        problems += [f"{_field(name)}: there is no such field" for name in source if name not in _KNOWN][:MAX_PROBLEMS]
    service = _service(source, problems)
    requirements = _requirements(source, service, problems)
    payload, secrets = _payload(source, service, services, problems, packed=packed)
    made = Submission(
        id=_job_id(source, requirements.customer, problems),
        service=service,
        payload=payload,
        secrets=secrets,
        requirements=requirements,
        priority=_integer(source, "priority", 0, -MAX_PRIORITY, MAX_PRIORITY, problems),
        max_retries=_integer(source, "max_retries", DEFAULT_RETRIES, 0, MAX_RETRIES, problems),
        inputs=inputs_of(source, problems, files=files),
    )
    return problems or made


def _field(name: object) -> str:
    return name if isinstance(name, str) and len(name) <= 64 and name.isprintable() else shown(name)


def parse_submission(source: object, services: Services = _UNKNOWN_SERVICES, *, files: bool = False) -> Submission:
    """The job that `source` (decoded JSON) asks for. Raises BadSubmission with all problems at once.

    `files`: whether its inputs may be files of the caller.
    """
    made = _check(source, services, files=files)
    if isinstance(made, list):
        raise BadSubmission(made)
    return made


def parse_batch(source: object, services: Services = _UNKNOWN_SERVICES) -> list[Submission]:
    """The jobs of a list of 1 to MAX_BATCH, in its order: all of them, or none.

    Raises BadSubmission; its problems name each bad job by its index, as in `jobs[3].service: …`.
    """
    if not isinstance(source, list | tuple):
        raise BadSubmission([f"jobs: expected a list, found {shown(source)}"], what=_NONE)
    if not 0 < len(source) <= MAX_BATCH:
        found = f"jobs: expected 1 to {MAX_BATCH} jobs, found {len(source)}"
        raise BadSubmission([found], what=_NONE)
    return _all_of((isinstance(item, dict), _check(item, services)) for item in source)


def parse_batch_text(text: bytes, services: Services = _UNKNOWN_SERVICES) -> list[Submission]:
    """As parse_batch, from JSON. Holds one decoded job at a time, and lets other threads run after each.

    Raises BadSubmission also for what is not JSON. The payloads are Raw.
    """
    count = 0

    class Counted(Struct):
        """An object of which nothing is kept: the list ends where it is too long, before it fills the memory."""

        def __post_init__(self) -> None:
            nonlocal count
            count += 1
            if count > MAX_BATCH:
                raise ValueError(f"expected 1 to {MAX_BATCH} jobs, found more")

    try:
        msgspec.json.decode(text, type=list[Counted])
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
    except msgspec.ValidationError as e:
        what, _, where = str(e).partition(" - at `$")
        raise BadSubmission([f"jobs{where.rstrip('`')}: {what.replace('Expected', 'expected')}"], what=_NONE) from e
    except _NOT_JSON as e:
        raise BadSubmission([f"jobs: not JSON: {e}"], what=_NONE) from e
    if not items:
        raise BadSubmission([f"jobs: expected 1 to {MAX_BATCH} jobs, found 0"], what=_NONE)
    return _all_of(_check_text(item, services) for item in items)


def _check_text(item: msgspec.Raw, services: Services) -> tuple[bool, Submission | list[str]]:
    """Whether the problems are those of fields, and the job or its problems."""
    size = memoryview(item).nbytes
    if size > MAX_JOB_BYTES:
        return False, [f"{size} bytes, at most {MAX_JOB_BYTES} are taken"]
    try:
        source = msgspec.json.decode(item)
    except _NOT_JSON as e:
        return False, [f"not JSON: {e}"]
    return True, _check(source, services, packed=True)


def _all_of(checked: Iterable[tuple[bool, Submission | list[str]]]) -> list[Submission]:
    made: list[Submission] = []
    problems: list[str] = []
    for i, (named, one) in enumerate(checked):
        if isinstance(one, Submission):
            made.append(one)
        else:
            problems += [f"jobs[{i}]{'.' if named else ': '}{problem}" for problem in one]
    if len(problems) > MAX_PROBLEMS:
        problems = [*problems[:MAX_PROBLEMS], f"and {len(problems) - MAX_PROBLEMS} more"]
    if problems:
        raise BadSubmission(problems, what=_NONE)
    return made
