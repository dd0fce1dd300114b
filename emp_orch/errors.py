"""The one root of emp's errors, and the exit codes of the CLI."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `emp` (DESIGN.md §8)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4


class EmpError(Exception):
    """Something a user can act on: `message` says what and where, `hint` says the way out."""

    exit_code: Exit = Exit.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EmpError):
    """Bad usage or a bad emp.yaml."""

    exit_code = Exit.USAGE


class Unreachable(EmpError):
    """Redis, Docker or the API does not answer. Retryable."""

    exit_code = Exit.UNREACHABLE


class WaitTimeout(EmpError):
    """A state that was awaited did not come in time."""

    exit_code = Exit.TIMEOUT


class Damaged(EmpError):
    """What was asked for stands where emp keeps it, and does not fit: somebody else wrote it, or another
    version of emp. It costs what it holds, and nothing beside."""
