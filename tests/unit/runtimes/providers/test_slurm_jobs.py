"""What squeue lists, as boxes: its forms of two generations, jobs of others, and answers that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import ProviderError
from emp_orch.runtimes.providers.slurm.jobs import boxes_of, in_json, in_text

POOL = PoolName("renders")


def said(*listed: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"jobs": listed, **more})


def job(job_id: int = 1, state: Any = "RUNNING", **more: Any) -> dict[str, Any]:
    given = {"job_id": job_id, "user_id": 7, "name": "emp.f.renders-1aaa", "job_state": state, "nodes": "n1"}
    return {**given, "state_reason": "None", **more}


def boxes(said: bytes) -> tuple[Box, ...]:
    return boxes_of(in_json(said, 7), "f", POOL)


@pytest.mark.parametrize(
    ("state", "reason", "is_", "words"),
    [
        ("RUNNING", "None", BoxState.RUNNING, ""),
        (["RUNNING"], "None", BoxState.RUNNING, ""),
        (["CANCELLED", "COMPLETING"], "None", BoxState.RUNNING, "CANCELLED COMPLETING"),
        (["PENDING"], "Priority", BoxState.PENDING, "jobs of higher priority wait before it (Priority)"),
        ("PENDING", "Licenses", BoxState.PENDING, "Licenses"),
        ("FAILED", "NonZeroExitCode", BoxState.ENDED, "FAILED (NonZeroExitCode)"),
        (["NODE_FAIL"], "NodeDown", BoxState.ENDED, "NODE_FAIL (NodeDown)"),
        ("NEW_WORD", "None", BoxState.UNKNOWN, "NEW_WORD"),
    ],
)
def test_a_job_is_a_box(state: Any, reason: str, is_: BoxState, words: str) -> None:
    (box,) = boxes(said(job(state=state, state_reason=reason)))
    assert (box.state, box.words, box.ref, box.node) == (is_, words, "job 1", "n1")


def test_jobs_of_others_are_none() -> None:
    names = ("emp.f.renders-b-1aaa", "emp.f-b.renders-1aaa", "emp.f.renders", "mine", "renders-1aaa")
    strangers = [job(user_id=8), {}, 3, {**job(), "job_id": "x"}, *(job(name=name) for name in names)]
    assert boxes(said(*strangers)) == ()


def test_of_several_jobs_of_a_member_the_living_one_counts() -> None:
    (box,) = boxes(said(job(3, "FAILED"), job(1, "RUNNING"), job(2, "PENDING")))
    assert box.ref == "job 1"


def test_words_are_one_line_and_bounded() -> None:
    (box,) = boxes(said(job(state="PENDING", state_reason="a\nb\x1b[2J", state_description="x" * 5000)))
    assert box.words.isprintable()
    assert len(box.words) <= 500


@pytest.mark.parametrize("wrong", [b"", b"{", b"[]", b'{"jobs": 3}', b'{"a": "\xff"}'])
def test_what_is_no_answer_is_refused(wrong: bytes) -> None:
    with pytest.raises(ProviderError, match="squeue"):
        in_json(wrong, 7)


def test_an_answer_with_errors_is_no_empty_list() -> None:
    errors = [{"source": "slurm_load_jobs", "description": "Failed while looking for jobs"}]
    with pytest.raises(ProviderError, match="slurm_load_jobs; Failed while looking for jobs"):
        in_json(said(errors=errors), 7)


def test_lines_say_the_same() -> None:
    lines = b"1|7|emp.f.renders-1aaa|PENDING||Resources\nrubbish\n2|8|emp.f.renders-2aaa|RUNNING|n1|None\n"
    (box,) = boxes_of(in_text(lines, 7), "f", POOL)
    assert (box.state, box.words) == (BoxState.PENDING, "no node has what it asks for free (Resources)")
