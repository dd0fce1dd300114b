from __future__ import annotations

from typing import Any

import pytest

from emp_orch.connectors.base import MAX_MESSAGE, RunFailed
from emp_orch.connectors.http.answers import Phase, body_for, look_at, pick, refusal, seconds_to_wait, words_of
from emp_orch.connectors.http.client import Requests, base_url
from emp_orch.errors import UsageError
from emp_orch.options.base import CannotLoad
from emp_orch.options.http import filled, headers_of, options_of
from emp_orch.worker.config import ServiceBinding, with_options
from support.worker.connector import job_of


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("a.b.1", "y"),
        ("/a/b/1", "y"),
        ("a", {"b": ["x", "y"]}),
        ("/d.e", 1),
        ("/s~1t/~0", 2),
        ("none", None),
        ("a.b.2", None),
        ("a.b.-1", None),
        ("a.b.x", None),
        ("a.b.0.c", None),
        ("n", None),
    ],
)
def test_a_field_is_a_place_in_json(field: str, found: Any) -> None:
    value = {"a": {"b": ["x", "y"]}, "d.e": 1, "s/t": {"~": 2}, "n": None}
    assert pick(value, field) == found


def test_the_body_takes_values_where_they_are_a_whole_text() -> None:
    job = job_of({"a": {"b": [1, None]}, "zero": 0})
    template = {"x": "$payload.a.b.0", "z": "$payload.zero", "y": ["$job_id", "no $job_id"], "n": None, "p": "$payload"}
    assert body_for(template, job) == {
        "x": 1,
        "z": 0,
        "y": ["job-1", "no $job_id"],
        "n": None,
        "p": {"a": {"b": [1, None]}, "zero": 0},
    }
    with pytest.raises(RunFailed, match=r"lacks 'a\.c'"):
        body_for(["$payload.a.c"], job)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-7", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header, now_s=10.0) == seconds


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"error": "a", "message": "b"}, None, "a"),
        ({"error": {"code": 3, "message": "b"}}, None, "b"),
        ({"error": {"code": 3}}, None, '{"code":3}'),
        ({"error": "", "detail": "c"}, None, "c"),
        ({"errors": ["x", "y"]}, None, '["x","y"]'),
        ({"why": "d", "error": "a"}, "why", "d"),
        ({"error": "a"}, "why", "a"),
        ("plain", None, "plain"),
        ([1], None, ""),
        ({}, None, ""),
    ],
)
def test_the_services_words(value: Any, field: str | None, words: str) -> None:
    assert words_of(value, field) == words


def test_endless_words_are_cut() -> None:
    error = refusal(400, b'{"error": "' + b"x" * 50_000 + b'"}', None).error
    assert len(error.message) == MAX_MESSAGE
    assert refusal(500, b"\xff" * 5_000, None).error.message.count("\ufffd") == 500


@pytest.mark.parametrize(
    ("answer", "phase", "fraction"),
    [
        ({"s": "OK"}, Phase.DONE, 0.0),
        ({"s": True}, Phase.DONE, 0.0),
        ({"s": 3}, Phase.FAILED, 0.0),
        ({"s": "OK", "success": False}, Phase.FAILED, 0.0),
        ({"s": "gone"}, Phase.STOPPED, 0.0),
        ({"s": "new", "p": 50}, Phase.RUNS, 0.25),
        ({"s": "new", "p": 500}, Phase.RUNS, 1.0),
        ({"s": "new", "p": -5}, Phase.RUNS, 0.0),
        ({"s": "new", "p": "half"}, Phase.RUNS, 0.0),
        ({"s": "new", "p": True}, Phase.RUNS, 0.0),
    ],
)
def test_what_an_answer_says_of_a_run(answer: Any, phase: Phase, fraction: float) -> None:
    options = options_of(
        {
            "path": "/x",
            "mode": "poll",
            "id_field": "id",
            "status_path": "/{id}",
            "status_field": "s",
            "done": ["ok", True],
            "failed": [3],
            "cancelled": ["Gone"],
            "progress_field": "p",
            "progress_max": 200,
        }
    )
    look = look_at(answer, options, judge=True)
    assert (look.phase, look.fraction) == (phase, fraction)


def test_an_id_is_one_step_of_a_path() -> None:
    assert filled("/jobs/{id}/of/{job_id}", "j 1", "../a?b#c/d") == "/jobs/..%2Fa%3Fb%23c%2Fd/of/j%201"


def test_headers_take_secrets_from_the_environment() -> None:
    options = options_of({"path": "/x", "headers": {"A": "plain", "Authorization": {"env": "KEY"}}})
    assert headers_of(options, {"KEY": "Bearer x"}) == {"A": "plain", "Authorization": "Bearer x"}


def test_options_reach_the_binding_they_name() -> None:
    a, b = (ServiceBinding(service=s, connector="http", url="http://h") for s in "ab")
    assert [x.options for x in with_options((a, b), ('b={"path": "/=x"}',))] == [{}, {"path": "/=x"}]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("a",), "names no --service"),
        (("c={}",), "'c' names no --service"),
        (("a={}", "a={}"), "names a twice"),
        (("a=[]",), "of a is not a JSON object"),
        (("a={",), "of a is not a JSON object"),
        (('a={"token": s3cret}',), "of a is not a JSON object"),
    ],
)
def test_bad_options_are_refused_without_their_values(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        with_options((ServiceBinding(service="a", connector="http", url="http://h"),), texts)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["[::1", "h:99999999", "h:pw2", "", "a b", "h\x00"])
@pytest.mark.parametrize("scheme", ["http", "ftp", "", "ht tp"])
@pytest.mark.parametrize("login", ["user:hunter2", "user:hunter2@x", "hunter2", "user:hunter2/3", "u:hunter2?x#"])
def test_a_bad_url_is_told_without_its_login(scheme: str, login: str, host: str) -> None:
    try:
        requests = Requests(base_url(f"{scheme}://{login}@{host}"), {})
    except CannotLoad as e:
        told = f"{e.message} {e.hint}"
    else:
        told = requests.shown
    assert "hunter2" not in told
