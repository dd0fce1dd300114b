"""What a job may name as its input files, and what of a workflow refers to them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from emp_orch.jobs.document.inputs import MAX_INLINE_BYTES, Content, LocalFile, literals, references, shown_source
from emp_orch.jobs.document.model import InputSource
from emp_orch.jobs.document.submission import BadSubmission, parse_submission

DIGEST = "sha256:" + "a" * 64


def job(inputs: Any, **more: Any) -> dict[str, Any]:
    return {"service": "s", "inputs": inputs, **more}


def node(**inputs: Any) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": inputs}


def problems(source: object, **how: Any) -> tuple[str, ...]:
    with pytest.raises(BadSubmission) as caught:
        parse_submission(source, **how)
    return caught.value.problems


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"asset": DIGEST}, InputSource(asset=DIGEST)),
        ({"url": "https://example.org/a.png?key=1"}, InputSource(url="https://example.org/a.png?key=1")),
        ({"base64": "aGk="}, Content(data=b"hi")),
        ({"base64": "data:image/png;base64,aGk="}, Content(data=b"hi")),
        ({"url": "data:image/png;base64,aGk="}, Content(data=b"hi")),
        ({"base64": "aG\nk="}, Content(data=b"hi")),
        ({"job": {"id": "j1", "output": "a.png"}}, InputSource(job="j1", output="a.png")),
        ({"job": "j1/a.png"}, InputSource(job="j1", output="a.png")),
    ],
)
def test_each_source_is_read(source: dict[str, Any], expected: object) -> None:
    assert parse_submission(job({"photo.png": source})).inputs == {"photo.png": expected}


def test_a_file_is_read_only_by_who_has_it() -> None:
    asked = job({"photo.png": {"file": "x.png"}})
    assert parse_submission(asked, files=True).inputs == {"photo.png": LocalFile(path="x.png")}
    assert problems(asked) == (
        "inputs.photo.png.file: only `emp submit` reads files; upload it to /api/assets and name its asset",
    )


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([], "inputs: expected an object of names, found []"),
        ({f"{n}.png": {"base64": ""} for n in range(65)}, "inputs: 65 of them, at most 64 are taken"),
        ({"a": "x"}, "inputs.a: expected one of file, url, base64, asset, job, found 'x'"),
        ({"a": {"path": "x"}}, "inputs.a: expected one of file, url, base64, asset, job, found 'path'"),
        ({"a": {"asset": "x", "url": "y"}}, "inputs.a: expected one of file, url, base64, asset, job, found "),
        ({"a": {"asset": "md5:1"}}, "inputs.a.asset: expected sha256:HEX, found 'md5:1'"),
        ({"a": {"base64": "?"}}, "inputs.a.base64: not base64: "),
        ({"a": {"base64": 7}}, "inputs.a.base64: expected a string, found 7"),
        ({"a": {"url": "ftp://h/x"}}, "inputs.a.url: expected an http or https URL"),
        ({"a": {"url": "https://"}}, "inputs.a.url: expected an http or https URL"),
        ({"a": {"url": "http://[::1"}}, "inputs.a.url: not a URL"),
        ({"a": {"url": "https://me:pw@h/x"}}, "inputs.a.url: holds a login, and none is sent"),
        ({"a": {"job": "j1"}}, "inputs.a.job: expected the name of an output of job j1, found ''"),
        ({"a": {"job": {"id": "../x", "output": "y"}}}, "inputs.a.job: expected a job's id, found '../x'"),
        ({"a": {"job": {"id": "j"}}}, "inputs.a.job: expected {id, output} or ID/OUTPUT, found "),
        ({"a": {"asset": DIGEST}, "a/b": {"asset": DIGEST}}, "inputs.a: another input's folder is called so"),
    ],
)
def test_what_is_wrong_with_an_input_is_said(inputs: Any, expected: str) -> None:
    (found,) = problems(job(inputs))
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../b", ".hidden", "a/.b", "a//b", "a\\b", "c:x", "a\nb", "x" * 401, "a/" * 9]
)
def test_a_name_leads_nowhere_else(name: str) -> None:
    (found,) = problems(job({name: {"asset": DIGEST}}))
    assert found.startswith("inputs: ")


def test_all_problems_come_at_once() -> None:
    found = problems({"inputs": {"../a": {"asset": DIGEST}, "b": {"asset": "x"}}, "priority": "high"})
    assert len(found) == 4


def test_base64_is_bounded_in_all() -> None:
    half = base64.b64encode(bytes(MAX_INLINE_BYTES // 2 + 1)).decode()
    (found,) = problems(job({"a": {"base64": half}, "b": {"base64": half}}))
    assert found.startswith(f"inputs: {MAX_INLINE_BYTES + 2} bytes as base64")


@pytest.mark.parametrize("where", ["workflow", "prompt", None])
def test_an_input_that_no_node_names_is_a_mistake(where: str | None) -> None:
    workflow = {"1": node(image="photo.png"), "2": node(image="mask.png [input]", video=["1", 0])}
    payload = workflow if where is None else {where: workflow}
    good = {"photo.png": {"asset": DIGEST}, "mask.png": {"asset": DIGEST}}
    assert parse_submission(job(good, payload=payload)).inputs.keys() == good.keys()
    assert problems(job({**good, "foto.png": {"asset": DIGEST}}, payload=payload)) == (
        "inputs.foto.png: no node's input says foto.png",
    )


def test_a_folder_that_a_node_names_means_all_in_it() -> None:
    inputs = {"frames/1.png": {"asset": DIGEST}, "frames/2.png": {"asset": DIGEST}}
    assert parse_submission(job(inputs, payload={"workflow": {"1": node(directory="frames")}})).inputs


def test_nothing_is_said_of_a_payload_that_is_no_workflow() -> None:
    assert parse_submission(job({"a": {"asset": DIGEST}}, payload={"prompt": "a fox"})).inputs


def test_links_to_other_nodes_are_not_literals() -> None:
    assert list(literals({"image": "a", "mask": ["b", 0], "list": ["c", "d"], "deep": {"x": ["e"]}})) == list("acde")


def test_what_refers_to_an_input() -> None:
    assert references(["d/a.png"]) == {"d/a.png": "d/a.png", "d": "d", "d/a.png [input]": "d/a.png", "d [input]": "d"}


def test_a_url_is_shown_without_its_query() -> None:
    assert shown_source(InputSource(url="https://h/a.png?sig=secret#x")) == {"url": "https://h/a.png?…"}
    assert shown_source(InputSource(asset=DIGEST, size=3)) == {"asset": DIGEST, "size": 3}
    assert shown_source(InputSource(job="j", output="a.png")) == {"job": {"id": "j", "output": "a.png"}}
