"""What came of a run, in a form that can be recorded."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.jobs.document.model import Crash, JobError, Result
from emp_orch.jobs.matching.offers import Needs
from emp_orch.jobs.outcome.retry import Cause


class Done(Struct, frozen=True, kw_only=True):
    result: Result


class NotDone(Struct, frozen=True, kw_only=True):
    """`crash`: the service ended during the run, and nobody else can have done it. `unsaved`: what it made could not be
    saved.
    """

    cause: Cause
    error: JobError
    crash: Crash | None = None
    unsaved: bool = False


class Cancelled(Struct, frozen=True, kw_only=True):
    """The run was stopped because someone asked for it. `reason`: what is to be said of that."""

    reason: str = ""


class Lost(Struct, frozen=True, kw_only=True):
    """The lease is gone: the job is another's, or ended; nothing is to be recorded."""


class Lacks(Struct, frozen=True, kw_only=True):
    """The job needs what this worker's service does not have: it was not run, and is for others."""

    needs: Needs
    reason: str


Outcome = Done | NotDone | Cancelled | Lost | Lacks
