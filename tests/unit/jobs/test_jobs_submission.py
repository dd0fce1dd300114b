from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from emp_orch.jobs.document.submission import (
    MAX_BATCH,
    MAX_JOB_BYTES,
    MAX_PAYLOAD_DEPTH,
    MAX_PROBLEMS,
    BadSubmission,
    parse_batch,
    parse_batch_text,
    parse_submission,
)


def problems(source: object) -> tuple[str, ...]:
    with pytest.raises(BadSubmission) as caught:
        parse_submission(source)
    return caught.value.problems


def asking(**requirements: Any) -> dict[str, Any]:
    return {"service": "s", "requirements": requirements}


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ({"hardware": {"vram": 3}}, "requirements.hardware.vram: there is no such field"),
        ({"colour": "red"}, "requirements.colour: there is no such field"),
        ({"hardware": {"gpu_count": 1.5}}, "requirements.hardware.gpu_count: expected int | null, got float"),
        ({"hardware": {"gpu_memory_gb": True}}, "requirements.hardware.gpu_memory_gb: expected float | null, got bool"),
        ({"hardware": {"ram_gb": -1}}, "requirements.hardware.ram_gb: expected float >= 0.0"),
        (
            {"hardware": {"cpu": 2, "cpu_cores": 2}},
            "requirements.hardware: cpu and cpu_cores are the same; give one",
        ),
        ({"hardware": {"gpu_model": []}}, "requirements.hardware.gpu_model: expected array of length >= 1"),
        ({"models": "flux"}, "requirements.models: expected array, got str"),
        ({"models": ["flux", ""]}, "requirements.models[1]: expected str of length >= 1"),
        ({"models": ["fl\nux"]}, "requirements.models[0]: expected a name without control characters"),
        ({"models": ["x"] * 257}, "requirements.models: expected array of length <= 256"),
        ({"workflow": "x" * 257}, "requirements.workflow: expected str of length <= 256"),
        ({"positive": {"x" * 257: 1}}, "requirements.positive: expected str of length <= 256 for a key"),
        ({"negative": {str(i): 1 for i in range(65)}}, "requirements.negative: expected object of length <= 64"),
        ({"isolation": "tight"}, "requirements.isolation: invalid enum value 'tight'"),
        (
            {"isolation": "strict"},
            "requirements.isolation: strict needs a customer, for whom the worker is kept",
        ),
        ({"service": "t"}, "requirements.service: 't' contradicts service 's'"),
        ({"positive": {"x": "y" * 70_000}}, "requirements: 70021 bytes, at most 65536 are taken"),
    ],
)
def test_requirements_that_do_not_fit(requirements: dict[str, Any], expected: str) -> None:
    assert problems(asking(**requirements)) == (expected,)


def test_requirements_nested_too_deep() -> None:
    deep: Any = 1
    for _ in range(14):
        deep = [deep]
    assert parse_submission(asking(positive={"x": deep})).requirements.positive == {"x": deep}
    assert problems(asking(positive={"x": [deep]})) == ("requirements: nested more than 16 deep",)
    for _ in range(100_000):
        deep = [deep]
    (problem,) = problems(asking(positive={"x": deep}))
    assert problem.startswith("requirements: not JSON")
    (problem,) = problems({"service": deep})
    assert problem.startswith("service: expected a service's name, found [[[") and len(problem) < 250


def test_second_names_of_minimums() -> None:
    short = parse_submission(asking(hardware={"cpu": 8, "ram": 64}))
    long = parse_submission(asking(hardware={"cpu_cores": 8, "ram_gb": 64.0}))
    assert short.requirements == long.requirements


def test_jobs_that_ask_the_same_share_their_requirements() -> None:
    one, two = (parse_submission(asking(models=["flux"], customer="c")) for _ in range(2))
    assert one.requirements is two.requirements
    other = parse_submission({"service": "t", "requirements": {"models": ["flux"], "customer": "c"}})
    assert other.requirements.service == "t"


def test_an_idempotency_key_makes_the_id() -> None:
    made = parse_submission({"service": "s", "idempotency_key": "order 7"})
    assert made.id == "key-" + hashlib.sha256(b"order 7").hexdigest()[:32]
    assert parse_submission({"service": "t", "idempotency_key": "order 7"}).id == made.id
    assert parse_submission({"service": "s", "idempotency_key": "order 8"}).id != made.id
    theirs = [
        parse_submission({**asking(customer=customer), "idempotency_key": "order 7"}).id for customer in ("a", "b")
    ]
    assert len({made.id, *theirs}) == 3
    assert problems({"service": "s", "id": "x", "idempotency_key": "y"}) == (
        "idempotency_key: the id is made from it, so give one of the two",
    )


@pytest.mark.parametrize("key", ["", "a\n", "x" * 257, 7, ["a"], True])
def test_what_is_no_idempotency_key(key: object) -> None:
    (problem,) = problems({"service": "s", "idempotency_key": key})
    assert problem.startswith("idempotency_key: expected 1 to 256 printable characters, found ")


def test_a_batch_keeps_its_order() -> None:
    made = parse_batch([{"service": "s", "id": f"j{i}", "payload": {"i": i}} for i in range(100)])
    assert [(m.id, m.payload) for m in made] == [(f"j{i}", {"i": i}) for i in range(100)]


def test_a_batch_names_every_bad_job_and_takes_none() -> None:
    with pytest.raises(BadSubmission) as caught:
        parse_batch([{"service": "s"}, 3, {"service": "s"}, {"service": "", "priority": "x"}])
    assert caught.value.problems == (
        "jobs[1]: expected an object, found 3",
        "jobs[3].service: expected a service's name, found ''",
        "jobs[3].priority: expected a whole number from -1000000 to 1000000, found 'x'",
    )
    assert caught.value.message.startswith("no job was accepted: jobs[1]: ")


def test_a_batch_of_many_bad_jobs_is_told_briefly() -> None:
    with pytest.raises(BadSubmission) as caught:
        parse_batch([{"service": "s"}] + [{}] * 80)
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[0].startswith("jobs[1].service: ")
    assert caught.value.problems[-1] == "and 30 more"
    with pytest.raises(BadSubmission) as caught:
        parse_batch([{}] * MAX_PROBLEMS)
    assert len(caught.value.problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ([], "jobs: expected 1 to 10000 jobs, found 0"),
        ([{"service": "s"}] * (MAX_BATCH + 1), "jobs: expected 1 to 10000 jobs, found 10001"),
        ({"service": "s"}, "jobs: expected a list, found {'service': 's'}"),
        (None, "jobs: expected a list, found None"),
    ],
)
def test_what_is_no_batch(source: object, expected: str) -> None:
    with pytest.raises(BadSubmission) as caught:
        parse_batch(source)
    assert caught.value.problems == (expected,)


def test_the_largest_batch_is_taken() -> None:
    assert len(parse_batch([{"service": "s"}] * MAX_BATCH)) == MAX_BATCH


def nested(depth: int) -> Any:
    """A payload whose lists and objects stand `depth` deep in each other, among text that only looks like it."""
    value: Any = '[[[{"\\\\" ' * 200
    for i in range(depth - 1):
        value = [value, 1] if i % 2 else {"a": value, "]": 1}
    return {"value": value}


def test_a_payload_that_not_everybody_could_read_is_refused() -> None:
    """Decoding fails at a depth that depends on the reader's own: what one takes, another calls damaged."""
    assert parse_submission({"service": "s", "payload": nested(MAX_PAYLOAD_DEPTH)})
    (words,) = problems({"service": "s", "payload": nested(MAX_PAYLOAD_DEPTH + 1)})
    assert words == f"payload: nested more than {MAX_PAYLOAD_DEPTH} deep"
    wide: dict[str, Any] = {"value": [{"a": []}] * 10_000}
    assert parse_submission({"service": "s", "payload": wide}).payload == wide


def test_a_batch_as_text_is_what_it_is_decoded() -> None:
    jobs = [{"service": "s", "payload": {"n": n, "of": ["x"]}, "priority": n} for n in range(5)] + [{"service": "t"}]
    plain, packed = parse_batch(jobs), parse_batch_text(msgspec.json.encode(jobs))
    assert msgspec.json.encode(plain) == msgspec.json.encode(packed)
    assert msgspec.json.decode(packed[3].payload) == plain[3].payload  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[{"service":"s"},{"service":"s","payload":{"a":"\xff"}}]', "jobs[1]: not JSON"),
        (b'[{"service":"s","payload":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}]", "not JSON"),
        (b'[{"service":"s","payload":{"a":"' + b"x" * MAX_JOB_BYTES + b'"}}]', "jobs[0]: "),
        (b"[" + b"{}," * MAX_BATCH + b"{}]", f"expected 1 to {MAX_BATCH} jobs"),
        (b"[" + b"1," * 1_000_000 + b"1]", "expected `object`, got `int`"),
        (b"[]", f"expected 1 to {MAX_BATCH} jobs"),
        (b'[{"service":"s"}', "not JSON"),
        (b'[{"service":""},{"id":1}]', "jobs[0].service: "),
    ],
)
def test_a_batch_as_text_is_refused_in_words(text: bytes, expected: str) -> None:
    with pytest.raises(BadSubmission) as caught:
        parse_batch_text(text)
    assert expected in caught.value.problems[0]
