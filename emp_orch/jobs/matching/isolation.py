"""Whose jobs a worker takes: customers kept apart, and workers pinned to workflows.

A worker says `capabilities["customers"] = {"isolation": "loose" | "strict", "allow": [...], "deny": [...]}`; what
it leaves out is loose and empty. `deny` wins over `allow`. C is the job's customer:

| the worker                      | no customer | C, loose | C, strict |
|---------------------------------|-------------|----------|-----------|
| says nothing of customers       | takes it    | takes it | no        |
| loose, denies others            | takes it    | takes it | no        |
| loose or strict, denies C       | (no C)      | no       | no        |
| loose or strict, allows C       | no          | takes it | takes it  |
| loose or strict, allows others  | no          | no       | no        |
| strict, allows nobody           | no          | no       | no        |

A worker that says `capabilities["workflows"]` is pinned to them:

| the worker           | no workflow | workflow W |
|----------------------|-------------|------------|
| is not pinned        | takes it    | takes it   |
| is pinned to W       | no          | takes it   |
| is pinned to others  | no          | no         |
| is pinned to nothing | no          | no         |

Both fail closed: a worker whose `customers` or `workflows` do not fit their type takes no job at all.
Reasons name no other customer: they are shown to whoever asks about a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.jobs.matching.capability import shown


class Isolation(StrEnum):
    """`strict`: only where the customer is named. `loose`: wherever nothing speaks against it."""

    LOOSE = "loose"
    STRICT = "strict"


class Customers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker says of the customers whose jobs it takes."""

    isolation: Isolation = Isolation.LOOSE
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


_ANYBODY = Customers()
_SHAPE = "{isolation: loose or strict, allow: [names], deny: [names]}"


def customer_reason(customer: str | None, isolation: Isolation, capabilities: Mapping[str, Any]) -> str | None:
    """Why a worker does not take this customer's job; None when it does."""
    theirs = _ANYBODY
    if "customers" in capabilities:
        try:
            theirs = msgspec.convert(capabilities["customers"], Customers)
        except (msgspec.ValidationError, RecursionError):
            return f"customers: the worker takes no job, for what it says of them is not {_SHAPE}"
    if customer is None:
        if theirs.allow or theirs.isolation is Isolation.STRICT:
            return "customer: the job names none, the worker takes only jobs of customers it allows"
        return None
    if customer in theirs.deny:
        return f"customer {shown(customer)}: the worker denies it"
    if customer in theirs.allow:
        return None
    if isolation is Isolation.STRICT:
        return f"customer {shown(customer)}: the job asks for strict isolation, the worker does not allow it by name"
    if theirs.allow or theirs.isolation is Isolation.STRICT:
        return f"customer {shown(customer)}: the worker takes only customers it allows, and not this one"
    return None


def workflow_reason(workflow: str | None, capabilities: Mapping[str, Any]) -> str | None:
    """Why a worker does not take a job of this workflow; None when it does."""
    if "workflows" not in capabilities:
        return None
    pinned = capabilities["workflows"]
    if not isinstance(pinned, list | tuple) or not all(isinstance(name, str) for name in pinned):
        return f"workflows: the worker takes no job, for it has {shown(pinned)} where a list of names is expected"
    if workflow is not None and workflow in pinned:
        return None
    asked = "workflow: the job names none" if workflow is None else f"workflow {shown(workflow)} is needed"
    return f"{asked}, the worker is pinned to {shown(pinned)}"
