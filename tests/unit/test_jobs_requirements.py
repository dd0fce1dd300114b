from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs import BadSubmission, parse_submission
from emp_orch.jobs.requirements import Requirements, lane_of, unmet
from emp_orch.jobs.retry import Cause, End, Requeue, decide
from emp_orch.jobs.states import ENDED, TRANSITIONS, JobStatus, may_follow

WORKER: dict[str, Any] = {
    "services": ["simulation", "comfyui"],
    "gpu": 0,
    "hardware": {"gpu_memory_gb": 24, "gpu_model": "RTX 4090"},
    "models": ["sdxl", "flux"],
    "region": "eu",
    "spot": False,
    "bandwidth": 100,
}


def reasons(**fields: Any) -> tuple[str, ...]:
    return unmet(parse_submission({"service": "simulation", "requirements": fields}).requirements, WORKER)


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ({}, ()),
        ({"hardware": {"gpu_memory_gb": 24}}, ()),
        (
            {"hardware": {"gpu_memory_gb": 48}},
            ("hardware.gpu_memory_gb: at least 48 is needed, the worker has 24",),
        ),
        (
            {"hardware": {"ram_gb": 8}},
            ("hardware.ram_gb: at least 8 is needed, the worker does not say what it has",),
        ),
        ({"hardware": {"gpu_model": "rtx 4090"}}, ()),
        (
            {"hardware": {"gpu_model": "A100"}},
            ("hardware.gpu_model: 'A100' is needed, the worker has 'RTX 4090'",),
        ),
        ({"positive": {"models": ["flux"]}}, ()),
        ({"positive": {"models": "flux"}}, ()),
        (
            {"positive": {"models": ["flux", "wan"]}},
            ("models: ['flux', 'wan'] is needed, the worker has ['sdxl', 'flux']",),
        ),
        ({"positive": {"bandwidth": 50}}, ()),
        ({"positive": {"bandwidth": 200}}, ("bandwidth: 200 is needed, the worker has 100",)),
        ({"positive": {"spot": False}}, ()),
        ({"positive": {"spot": 0}}, ("spot: 0 is needed, the worker has False",)),
        ({"positive": {"licence": "x"}}, ("licence: 'x' is needed, the worker does not have it",)),
        ({"negative": {"region": "us"}}, ()),
        ({"negative": {"region": "eu"}}, ("region: 'eu' is ruled out, the worker has 'eu'",)),
        (
            {"negative": {"models": ["wan", "sdxl"]}},
            ("models: ['wan', 'sdxl'] is ruled out, the worker has ['sdxl', 'flux']",),
        ),
        ({"negative": {"licence": "x"}}, ()),
    ],
)
def test_what_a_worker_lacks_is_said_in_words(requirements: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert reasons(**requirements) == expected


def test_every_unmet_requirement_is_listed() -> None:
    wanted = Requirements(service="video", positive={"a": 1}, negative={"region": "eu"})
    assert len(unmet(wanted, WORKER)) == 3
    assert unmet(wanted, {}) == (
        "service 'video' is needed, the worker offers nothing",
        "a: 1 is needed, the worker does not have it",
    )


def test_equal_requirements_share_a_lane_whatever_their_order() -> None:
    one = parse_submission({"service": "s", "requirements": {"positive": {"a": 1, "b": {"c": 1, "d": 2}}}})
    two = parse_submission({"service": "s", "requirements": {"positive": {"b": {"d": 2, "c": 1}, "a": 1}}})
    assert lane_of(one.requirements) == lane_of(two.requirements)
    assert len(lane_of(one.requirements)) == 16
    for other in ({"negative": {"a": 1, "b": {"c": 1, "d": 2}}}, {"positive": {"a": 1}}, {}):
        changed = parse_submission({"service": "s", "requirements": other})
        assert lane_of(changed.requirements) != lane_of(one.requirements)
    assert lane_of(Requirements(service="t")) != lane_of(Requirements(service="s"))


def test_all_problems_of_a_submission_at_once() -> None:
    with pytest.raises(BadSubmission) as caught:
        parse_submission(
            {
                "service": "no such/name",
                "payload": [1],
                "priority": "high",
                "max_retries": -1,
                "requirements": {"hardware": {"vram": 3}},
                "id": "a b",
                "colour": "red",
            }
        )
    text = "\n".join(caught.value.problems)
    for field in ("service:", "payload:", "priority:", "max_retries:", "requirements:", "id:", "colour:"):
        assert field in text
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize(
    "source", [None, [], "x", {}, {"service": 3}, {"service": ""}, {"service": "s", "priority": True}]
)
def test_what_is_no_job_is_refused(source: object) -> None:
    with pytest.raises(BadSubmission):
        parse_submission(source)


def test_a_requirement_for_another_service_contradicts() -> None:
    with pytest.raises(BadSubmission, match="contradicts"):
        parse_submission({"service": "a", "requirements": {"service": "b"}})


def test_a_payload_too_large_is_refused() -> None:
    with pytest.raises(BadSubmission, match="bytes"):
        parse_submission({"service": "a", "payload": {"x": "y" * 5_000_000}})


@pytest.mark.parametrize(
    ("cause", "retryable", "attempts", "cancelled", "expected"),
    [
        (Cause.FAILED, True, 1, False, Requeue(counts=True)),
        (Cause.FAILED, True, 3, False, End(status=JobStatus.FAILED)),
        (Cause.FAILED, False, 1, False, End(status=JobStatus.FAILED)),
        (Cause.TIMEOUT, True, 2, False, Requeue(counts=True)),
        (Cause.TIMEOUT, True, 3, False, End(status=JobStatus.TIMEOUT)),
        (Cause.LOST, True, 3, False, End(status=JobStatus.FAILED)),
        (Cause.HANDED_BACK, True, 3, False, Requeue(counts=False)),
        (Cause.HANDED_BACK, True, 1, True, End(status=JobStatus.CANCELLED)),
        (Cause.FAILED, True, 1, True, End(status=JobStatus.CANCELLED)),
    ],
)
def test_the_retry_decision(
    cause: Cause, retryable: bool, attempts: int, cancelled: bool, expected: Requeue | End
) -> None:
    found = decide(cause=cause, retryable=retryable, attempts=attempts, max_retries=2, cancelled=cancelled)
    assert found == expected


def test_transitions() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert not TRANSITIONS[JobStatus.COMPLETED], "a result is never taken back"
    assert all(TRANSITIONS[s] <= {JobStatus.PENDING} for s in ENDED)
    assert may_follow(JobStatus.PENDING, JobStatus.ASSIGNED)
    assert not may_follow(JobStatus.PENDING, JobStatus.COMPLETED)
