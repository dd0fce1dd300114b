"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from emp_orch.control.doctor.facts.unknown import Unknown

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts

T = TypeVar("T")


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Group(StrEnum):
    """In the order they are shown: what comes first may be the cause of what comes later."""

    BASICS = "basics"
    PLANE = "control plane"
    REDIS = "Redis"
    API = "API and page"
    DOCKER = "Docker hosts"
    MACHINES = "machines"
    WORKERS = "workers"


class Cannot(Exception):
    """A check has not the facts it needs."""


def known(fact: T | Unknown) -> T:
    """The fact itself. Raises Cannot with the reason it is unknown."""
    if isinstance(fact, Unknown):
        raise Cannot(fact.reason)
    return fact


def count(things: Sized, word: str) -> str:
    """`1 machine`, `2 machines`."""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


class Problem(Struct, frozen=True, kw_only=True):
    """`fix` is a command, or a sentence that says what to do."""

    what: str
    fix: str
    where: str = ""
    level: Level = Level.FAIL


def revive(facts: Facts, part: str) -> str:
    """The way to get a part of the control plane back."""
    info = next((i for i in facts.parts if i.name == part), None)
    if info is not None and info.statename in ("RUNNING", "STARTING", "BACKOFF"):
        return f"emp logs {part}"
    return "emp apply" if facts.supervisord is None else f"emp logs {part}; then emp apply starts it again"


class Check(Struct, frozen=True, kw_only=True):
    """`fine` says in words that all is well, when `find` finds nothing."""

    name: str
    group: Group
    fine: Callable[[Facts], str]
    find: Callable[[Facts], Iterable[Problem]]


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the answer. `where` is a file, an address, or a part of the fleet."""

    check: str
    group: Group
    level: Level
    what: str
    where: str = ""
    fix: str = ""
