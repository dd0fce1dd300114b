"""What may come of a stranger's command, who the stranger is, and the checks of single words of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.store.redis.damaged import DAMAGED

Words = tuple[bytes, ...]

MOST_NAME_BYTES = 200
# Streams keep a number of entries, whatever their size.
MAX_OWN_EVENT_BYTES = 16_384
# All that agents and workers append by themselves; what the queue appends of a job is its scripts' doing.
EVENTS = frozenset(
    {
        *("machine_startup", "startup_step", "startup_complete", "machine_status", "machine_stopped"),
        *("machine_conflict", "service_started", "service_failed", "program_state", "worker_package"),
        *("command_done", "worker_registered", "worker_status", "connector_status"),
    }
)
_TOKEN = re.compile(rb"[0-9a-f]{16}")
_NUMBER = re.compile(rb"[0-9]{1,15}")
CLASS = re.compile(rb"[0-9a-f]{16}")


class Box(Struct, frozen=True, kw_only=True):
    """One machine whose box is a stranger's. `group`: its pool, or itself. `workers`: the ids of its own. `services`:
    those that it has. `lease_ms`: for how long it may claim a job at once.
    """

    machine_id: str
    group: str
    workers: frozenset[str]
    services: frozenset[str]
    lease_ms: int


class NotAllowed(Exception):
    """A stranger may not send this; the text says why."""


class Pass(Struct, frozen=True):
    """It goes on as it is here; if it names a `model`, or is `costly` to Redis, only while the box has not sent too
    many of the kind.
    """

    words: Words
    model: bytes = b""
    costly: bool = False


class PassIfHeld(Struct, frozen=True, kw_only=True):
    """It goes on if a worker of the box holds the job, and, with a `lane`, if the job is of that; else `answer`."""

    words: Words
    job_id: str
    answer: bytes
    lane: str = ""


class PassIfServed(Struct, frozen=True, kw_only=True):
    """It goes on if each of these lanes, the last of its words, asks for a service that the box has; without those
    that are none, and only while the box has not been of too many classes. `name` is that of the class.
    """

    words: Words
    name: bytes
    lanes: tuple[str, ...]


class PassIfOffers(Struct, frozen=True, kw_only=True):
    """It goes on if the text is the document of this digest, and the box has not left too much of the kind."""

    words: Words
    digest: str
    text: str


class Lanes(Struct, frozen=True):
    """It is asked as new_lanes.lua answers; the box is told of the lanes alone whose service it has."""

    words: Words


class Answer(Struct, frozen=True):
    """It goes nowhere, and is answered by this, as RESP has it."""

    reply: bytes


Verdict = Pass | PassIfHeld | PassIfServed | PassIfOffers | Lanes | Answer


def require(holds: bool, why: str) -> None:
    if not holds:
        raise NotAllowed(why)


def text(word: bytes, most: int = MOST_NAME_BYTES) -> str:
    """A name of somebody's. Raises NotAllowed."""
    try:
        found = word.decode()
    except UnicodeDecodeError:
        raise NotAllowed("a name in it is no text") from None
    require(0 < len(found) <= most, "a name in it is empty, or too long")
    return found


def number(word: bytes, most: float) -> int:
    """Digits. Raises NotAllowed."""
    require(_NUMBER.fullmatch(word) is not None and int(word) <= most, f"a number in it is none, or beyond {most:g}")
    return int(word)


def seconds(word: bytes, most: float) -> None:
    """As BLPOP takes them; 0 would be for ever. Raises NotAllowed."""
    try:
        given = float(word)
    except ValueError:
        given = 0.0
    require(0 < given <= most, f"it would wait for longer than {most:g} s")


def token(word: bytes) -> str:
    """What proves a lease: workers draw 64 bits. Raises NotAllowed."""
    require(_TOKEN.fullmatch(word) is not None, "it names no token of a lease")
    return word.decode()


def own_worker(word: bytes, box: Box) -> str:
    found = text(word)
    require(found in box.workers, "it is about a worker that is not its own")
    return found


def own_event(type_: bytes, data: bytes, box: Box) -> None:
    """An event that a machine appends, about itself. Raises NotAllowed."""
    require(type_.decode("ascii", "replace") in EVENTS, "no machine appends such an event")
    about(type_, data, box)


def about(type_: bytes | None, data: bytes, box: Box) -> None:
    """Data of an event about the box itself. Raises NotAllowed."""
    require(len(data) <= MAX_OWN_EVENT_BYTES, "an event in it is too large")
    said = document(data, dict[str, Any], "an event")
    named = said.get("type")
    require(isinstance(named, str) and named in EVENTS, "no machine appends such an event")
    require(type_ is None or type_ == str(named).encode(), "an event in it has two types")
    machine, worker = said.get("machine_id"), said.get("worker_id")
    own = (machine is None or machine == box.machine_id) and (worker is None or worker in box.workers)
    require(own and (machine is not None or worker is not None), "it tells of another than itself")


def document(raw: bytes, kind: Any, what: str) -> Any:
    """JSON of this type. Raises NotAllowed."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except DAMAGED:
        raise NotAllowed(f"{what} in it does not fit") from None


def class_of_group(name: bytes, box: Box) -> bytes:
    """The class as the box's group has it: nobody claims as the workers of another do, and equal members are one."""
    require(CLASS.fullmatch(name) is not None, "it names no class of workers")
    return hashlib.sha256(b"\0".join((box.group.encode(), name))).hexdigest()[:16].encode()


def replaced(words: Sequence[bytes], at: int, word: bytes) -> Words:
    return (*words[:at], word, *words[at + 1 :])
