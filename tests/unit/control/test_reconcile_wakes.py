"""Which events give a reconciler that has nothing to do a reason to look."""

from __future__ import annotations

import pytest

from emp_orch.control.reconciler.loop import is_work
from emp_orch.store.fleet.events import Event


@pytest.mark.parametrize(
    ("type_", "previous", "status", "expected"),
    [
        ("worker_status", "idle", "busy", True),
        ("worker_status", "busy", "idle", True),
        ("connector_status", "idle", "active", True),
        ("connector_status", "active", "idle", True),
        ("worker_status", "initializing", "idle", False),
        ("worker_status", "busy", "draining", False),
        ("worker_status", "idle", "offline", False),
        ("connector_status", "starting", "idle", False),
        ("connector_status", "error", "idle", False),
        ("connector_status", "active", "error", False),
        ("connector_status", None, "idle", False),  # of a worker of an earlier version
        ("worker_registered", None, "idle", False),
        ("machine_ready", None, None, False),
    ],
)
def test_a_job_alone_is_none(type_: str, previous: str | None, status: str | None, expected: bool) -> None:
    event = Event(id="1-0", type=type_, data={"previous": previous, "status": status})
    assert is_work(event) is expected
