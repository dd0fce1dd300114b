from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs.document.states import ENDED, TRANSITIONS, JobStatus, may_follow
from emp_orch.jobs.document.submission import BadSubmission, parse_submission
from emp_orch.jobs.matching.requirements import Requirements, lane_of, unmet
from emp_orch.jobs.outcome.retry import Cause, End, Requeue, decide

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
        ({"positive": {"gpu": False}}, ("gpu: False is needed, the worker has 0",)),
        ({"positive": {"gpu": [False]}}, ("gpu: [False] is needed, the worker has 0",)),
        ({"negative": {"gpu": False}}, ()),
        ({"positive": {"bandwidth": [100.0]}}, ()),
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


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        ("RTX 4090", "RTX 4090", True),
        ("rtx 4090", "NVIDIA GeForce RTX 4090", True),
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("a100 80gb", "NVIDIA A100-SXM4-80GB", False),
        ("A100-SXM4", "NVIDIA A100-SXM4-80GB", True),
        ("A10", "NVIDIA A100-SXM4-80GB", False),
        ("NVIDIA L4", "L4", False),
        (["T4", "L4"], "NVIDIA L4", True),
        (["T4", "L4"], "NVIDIA L40S", False),
        ("?!", "?!", True),
        ("?!", "L4", False),
        ("L4", 4, False),
        ("L4", ["L4"], False),
    ],
)
def test_gpu_models(wanted: str | list[str], found: object, fits: bool) -> None:
    asked = parse_submission({"service": "s", "requirements": {"hardware": {"gpu_model": wanted}}}).requirements
    reasons = unmet(asked, {"services": ["s"], "hardware": {"gpu_model": found}})
    assert [r.partition(":")[0] for r in reasons] == ([] if fits else ["hardware.gpu_model"])


def test_any_of_several_gpu_models_in_words() -> None:
    assert reasons(hardware={"gpu_model": ["A100", "H100"]}) == (
        "hardware.gpu_model: 'A100' or 'H100' is needed, the worker has 'RTX 4090'",
    )


def test_second_names_of_a_workers_hardware() -> None:
    asked = parse_submission({"service": "s", "requirements": {"hardware": {"cpu": 8, "ram": 32}}}).requirements
    assert unmet(asked, {"services": ["s"], "hardware": {"cpu": 8, "ram": 64}}) == ()
    assert unmet(asked, {"services": ["s"], "hardware": {"cpu": 4, "cpu_cores": 16, "ram": 16}}) == (
        "hardware.ram_gb: at least 32 is needed, the worker has 16",
    )


def test_hardware_that_is_open_is_enough_and_hardware_that_is_told_is_not() -> None:
    asked = parse_submission(
        {"service": "s", "requirements": {"hardware": {"gpu_model": "L4", "ram": 32, "cpu": 8}}}
    ).requirements
    assert unmet(asked, {"services": ["s"]}, open_hardware=True) == ()
    assert unmet(asked, {"services": ["s"], "hardware": {"ram": 16}}, open_hardware=True) == (
        "hardware.ram_gb: at least 32 is needed, the worker has 16",
    )
    assert len(unmet(asked, {"services": ["s"]})) == 3


EVERYTHING = {
    "hardware": {"gpu_memory_gb": 1, "gpu_count": 1, "cpu": 1, "ram": 1, "gpu_model": "L4"},
    "models": ["flux"],
    "customer": "c",
    "isolation": "strict",
    "workflow": "w",
    "positive": {"region": "eu", "ports": [1, 2]},
    "negative": {"spot": True},
}


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ({"services": "s"}, "service 's' is needed, the worker's services are 's', which is no list"),
        ({"services": None}, "service 's' is needed, the worker's services are None, which is no list"),
        ({"services": [["s"], 3]}, "service 's' is needed, the worker offers ['s'], 3"),
        ({"hardware": [1]}, "hardware: some is needed, the worker has [1] where an object is expected"),
        ({"hardware": None}, "hardware: some is needed, the worker has None where an object is expected"),
        (
            {"hardware": {"gpu_memory_gb": "24"}},
            "hardware.gpu_memory_gb: at least 1 is needed, the worker has '24', which is no number",
        ),
        (
            {"hardware": {"gpu_count": True}},
            "hardware.gpu_count: at least 1 is needed, the worker has True, which is no number",
        ),
        ({"models": "flux"}, "models: ['flux'] is needed, the worker has 'flux', which is no list"),
        ({"models": {"flux": 1}}, "models: ['flux'] is needed, the worker has {'flux': 1}, which is no list"),
        ({"ports": {"1": 2}}, "ports: [1, 2] is needed, the worker has {'1': 2}"),
        ({"ports": [1, True]}, "ports: [1, 2] is needed, the worker has [1, True]"),
        (
            {"customers": "c"},
            "customers: the worker takes no job, for what it says of them is not "
            "{isolation: loose or strict, allow: [names], deny: [names]}",
        ),
        (
            {"workflows": "w"},
            "workflows: the worker takes no job, for it has 'w' where a list of names is expected",
        ),
    ],
)
def test_a_capability_of_a_wrong_type_satisfies_nothing(capability: dict[str, Any], expected: str) -> None:
    asked = parse_submission({"service": "s", "requirements": EVERYTHING}).requirements
    able: dict[str, Any] = {
        "services": ["s"],
        "hardware": {"gpu_memory_gb": 1, "gpu_count": 1, "cpu": 1, "ram": 1, "gpu_model": "L4"},
        "models": ["flux", "wan"],
        "customers": {"allow": ["c"]},
        "workflows": ["w"],
        "region": "eu",
        "ports": [1, 2, 3],
    }
    assert unmet(asked, able) == ()
    if isinstance(given := capability.get("hardware"), dict):
        capability = {"hardware": {**able["hardware"], **given}}
    assert unmet(asked, {**able, **capability}) == (expected,)


def test_only_what_is_missing_of_the_models_is_told() -> None:
    assert reasons(models=["sdxl", "wan"]) == ("models: ['wan'] is needed, the worker has ['sdxl', 'flux']",)
    assert unmet(Requirements(service="s", models=("wan",)), {"services": ["s"]}) == (
        "models: ['wan'] is needed, the worker does not say what it has",
    )


def test_reasons_stay_short_whatever_a_worker_says() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 100_000, list(range(100_000)), deep, 10**5_000, {"k" * 9_999: deep}):
        worker = {"services": value, "models": value, "x": value, "workflows": value, "customers": value}
        asked = Requirements(service="s", models=("m",), positive={"x": {"a": 1}}, negative={"x": [1]})
        found = unmet(asked, {**worker, "hardware": value})
        assert len(found) >= 4 and all(len(reason) < 600 for reason in found)


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


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"models": ["b", "a", "b"]}, {"models": ["a", "b"]}),
        ({"hardware": {"gpu_model": ["L4", "A100"]}}, {"hardware": {"gpu_model": ["A100", "L4"]}}),
        ({"hardware": {"gpu_model": ["L4", "L4"]}}, {"hardware": {"gpu_model": "L4"}}),
        ({"hardware": {"cpu": 2, "ram": 4}}, {"hardware": {"ram_gb": 4.0, "cpu_cores": 2}}),
        ({"positive": {"x": [3, "a", {"k": 1, "l": 2}]}}, {"positive": {"x": [{"l": 2, "k": 1}, "a", 3, 3]}}),
        ({"negative": {"x": ["b", "a"]}}, {"negative": {"x": ["a", "b"]}}),
        ({"customer": "c", "isolation": "loose"}, {"customer": "c"}),
        ({"models": [], "positive": {}, "hardware": {}}, {}),
    ],
)
def test_requirements_that_ask_the_same_share_a_lane(one: dict[str, Any], two: dict[str, Any]) -> None:
    lanes = {lane_of(parse_submission({"service": "s", "requirements": r}).requirements) for r in (one, two)}
    assert len(lanes) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"positive": {"x": [1]}}, {"positive": {"x": [True]}}),
        ({"positive": {"x": [[1, 2]]}}, {"positive": {"x": [[2, 1]]}}),  # a list in a list is compared as it is
        ({"customer": "c"}, {"customer": "d"}),
        ({"customer": "c"}, {"customer": "c", "isolation": "strict"}),
        ({"workflow": "w"}, {"models": ["w"]}),
    ],
)
def test_requirements_that_ask_something_else_do_not(one: dict[str, Any], two: dict[str, Any]) -> None:
    lanes = {lane_of(parse_submission({"service": "s", "requirements": r}).requirements) for r in (one, two)}
    assert len(lanes) == 2


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
    for field in ("service:", "payload:", "priority:", "max_retries:", "requirements.hardware.vram:", "id:", "colour:"):
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
