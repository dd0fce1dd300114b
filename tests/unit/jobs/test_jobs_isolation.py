from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs.matching import isolation
from emp_orch.jobs.matching.isolation import Isolation, customer_reason, workflow_reason
from support.tree import ROOT

NONE: tuple[str | None, Isolation] = (None, Isolation.LOOSE)
LOOSE: tuple[str | None, Isolation] = ("c", Isolation.LOOSE)
STRICT: tuple[str | None, Isolation] = ("c", Isolation.STRICT)
UNLISTED = "customer: the job names none, the worker takes only jobs of customers it allows"
DENIED = "customer 'c': the worker denies it"
ONLY_ALLOWED = "customer 'c': the worker takes only customers it allows, and not this one"
BY_NAME = "customer 'c': the job asks for strict isolation, the worker does not allow it by name"


@pytest.mark.parametrize(
    ("customers", "none", "loose", "strict"),
    [
        (None, None, None, BY_NAME),
        ({}, None, None, BY_NAME),
        ({"isolation": "loose", "deny": ["d"]}, None, None, BY_NAME),
        ({"deny": ["c"]}, None, DENIED, DENIED),
        ({"allow": ["d"], "deny": ["c"]}, UNLISTED, DENIED, DENIED),
        ({"isolation": "strict", "allow": ["c"], "deny": ["c"]}, UNLISTED, DENIED, DENIED),
        ({"allow": ["c", "d"]}, UNLISTED, None, None),
        ({"isolation": "strict", "allow": ["c"]}, UNLISTED, None, None),
        ({"allow": ["d"]}, UNLISTED, ONLY_ALLOWED, BY_NAME),
        ({"isolation": "strict", "allow": ["d"]}, UNLISTED, ONLY_ALLOWED, BY_NAME),
        ({"isolation": "strict"}, UNLISTED, ONLY_ALLOWED, BY_NAME),
    ],
)
def test_whose_jobs_a_worker_takes(
    customers: dict[str, Any] | None, none: str | None, loose: str | None, strict: str | None
) -> None:
    worker = {} if customers is None else {"customers": customers}
    found = [customer_reason(*job, worker) for job in (NONE, LOOSE, STRICT)]
    assert found == [none, loose, strict]


@pytest.mark.parametrize(
    "customers", [None, 3, "c", ["c"], {"allow": "c"}, {"allow": [3]}, {"isolation": "tight"}, {"allowed": ["c"]}]
)
def test_a_worker_whose_customers_do_not_fit_takes_no_job(customers: object) -> None:
    for job in (NONE, LOOSE, STRICT):
        reason = customer_reason(*job, {"customers": customers})
        assert reason is not None and reason.startswith("customers: the worker takes no job, ")


def test_no_reason_names_another_customer() -> None:
    for policy in ("loose", "strict"):
        worker = {"customers": {"isolation": policy, "allow": ["other"], "deny": ["third"]}}
        for job in (NONE, LOOSE, STRICT):
            reason = customer_reason(*job, worker)
            assert reason is not None and "other" not in reason and "third" not in reason


@pytest.mark.parametrize(
    ("workflows", "workflow", "expected"),
    [
        (None, None, None),
        (None, "w", None),
        (["v", "w"], "w", None),
        (["v"], "w", "workflow 'w' is needed, the worker is pinned to ['v']"),
        (["w"], None, "workflow: the job names none, the worker is pinned to ['w']"),
        ([], "w", "workflow 'w' is needed, the worker is pinned to []"),
        ([], None, "workflow: the job names none, the worker is pinned to []"),
    ],
)
def test_workers_pinned_to_workflows(workflows: list[str] | None, workflow: str | None, expected: str | None) -> None:
    assert workflow_reason(workflow, {} if workflows is None else {"workflows": workflows}) == expected


@pytest.mark.parametrize("workflows", [None, "w", 3, {"w": 1}, ["w", 3]])
def test_a_worker_whose_workflows_do_not_fit_takes_no_job(workflows: object) -> None:
    for workflow in (None, "w"):
        reason = workflow_reason(workflow, {"workflows": workflows})
        assert reason is not None and reason.startswith("workflows: the worker takes no job, ")


def test_the_guide_has_the_same_tables() -> None:
    guide = (ROOT / "docs" / "jobs.md").read_text()
    rows = [line for line in str(isolation.__doc__).splitlines() if line.startswith("|")]
    assert len(rows) == 14
    assert [row for row in rows if row not in guide] == []
