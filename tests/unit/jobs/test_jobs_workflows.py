from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.jobs.document.secrets import HIDDEN, Redaction, Secrets
from emp_orch.jobs.document.submission import BadSubmission, parse_batch, parse_submission
from emp_orch.jobs.document.workflows import Classes, Services, normalised

COMFY = Services(connectors={"comfyui": "comfyui", "pictures": "comfyui", "talk": "http"})
KEY = "comfyui-0123456789abcdef"
FLOW: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "Save"}},
}
EDITORS = {"nodes": [{"id": 1, "type": "SaveImage"}], "links": [], "version": 0.4}


def problems_of(payload: object, *, classes: Classes | None = None) -> list[str]:
    found = normalised(payload, classes=classes or Classes())
    assert isinstance(found, list), found
    return found


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({}, "payload: holds no workflow; give"),
        ({"workflow": {}}, "payload.workflow: the workflow has no node"),
        ({"workflow": EDITORS}, "payload.workflow: the workflow is in the editor's format; export it for the API"),
        (EDITORS, "payload: the workflow is in the editor's format; export it for the API (in ComfyUI: Workflow,"),
        ({"prompt": "a cat"}, "payload.prompt: the text is not JSON"),
        ("[1", "payload: the text is not JSON"),
        (7, "payload: expected an object, or its JSON as text, found 7"),
        ({"workflow": FLOW, "prompt": FLOW}, "payload: has workflow and prompt; give one of the two"),
        ({"workflow": FLOW, "steps": 3}, "payload.steps: there is no such field; a payload has client_id, extra_data"),
        ({"prompt": FLOW, "number": 1}, "payload.number: there is no such field; a job's place is its priority"),
        ({"workflow": FLOW, "partial": 1}, "payload.partial: expected true or false, found 1"),
        ({"workflow": FLOW, "extra_data": 1}, "payload.extra_data: expected an object, found int"),
        ({"input": {"workflow": FLOW, "images": []}}, "payload.input.images: there is no such field; files stand in"),
        ({"input": {"workflow": FLOW}, "webhook": "x"}, "payload.webhook: there is no such field"),
        ({"1": {"inputs": {}}}, "payload: node 1: has no class_type"),
        ({"workflow": {"1": {"inputs": {}, "_meta": {"title": "Load"}}}}, "payload.workflow: node 1 (Load): has no"),
        ({"workflow": {**FLOW, "3": "x"}}, "payload.workflow: node 3: expected an object with class_type and inputs"),
        (
            {"workflow": {"1": {"class_type": "X", "inputs": []}}},
            "payload.workflow: node 1 (X): inputs: expected an object, found []",
        ),
        (
            {"workflow": {"2": FLOW["2"]}},
            "payload.workflow: node 2 (SaveImage): input images links to node 1, which is not there",
        ),
    ],
)
def test_what_is_wrong_is_named(payload: object, problem: str) -> None:
    (found,) = problems_of(payload)
    assert found.startswith(problem)


def test_all_that_is_wrong_is_told_at_once_and_never_without_end() -> None:
    flow = {"1": {"inputs": {}}, "2": FLOW["2"], "3": []}
    found = problems_of({"workflow": flow, "partial": "yes", "font": 1})
    assert len(found) == 4
    assert "node 2" not in " ".join(found)  # node 1 is there, though it is bad
    many = problems_of({"workflow": {str(n): {"inputs": {}} for n in range(1_000)}})
    assert len(many) == 51 and many[-1] == "and 950 more"


def test_an_output_is_missed_only_where_outputs_are_known() -> None:
    flow = {"workflow": {"1": FLOW["1"]}}
    assert not isinstance(normalised(flow), list)
    classes = Classes(known=frozenset({"EmptyImage", "SaveImage"}), outputs=frozenset({"SaveImage"}))
    assert "no node of it is an output" in problems_of(flow, classes=classes)[0]
    assert not isinstance(normalised({"workflow": FLOW}, classes=classes), list)
    # A class that no worker reports may be one.
    custom = {"workflow": {**flow["workflow"], "2": {"class_type": "SaveToMoon", "inputs": {"images": ["1", 0]}}}}
    assert not isinstance(normalised(custom, classes=classes), list)


def test_a_node_may_have_any_name() -> None:
    flow = {"workflow": FLOW["1"], "input": {"class_type": "SaveImage", "inputs": {"images": ["workflow", 0]}}}
    made = parse_submission({"service": "comfyui", "payload": flow}, COMFY)
    assert made.payload == {"workflow": flow}


def test_lists_of_values_are_no_links() -> None:
    flow = {
        "1": {"class_type": "X", "inputs": {"size": [512, 512], "names": ["a", "b"], "one": ["a"], "on": ["a", True]}}
    }
    assert not isinstance(normalised(flow), list)


def test_secrets_leave_the_payload() -> None:
    request = {
        "prompt": FLOW,
        "client_id": "c",
        "extra_data": {
            "api_key_comfy_org": KEY,
            "auth_token_comfy_org": "",
            "client_id": "c",
            "preview_method": "auto",
        },
    }
    made = parse_submission({"service": "pictures", "payload": request}, COMFY)
    assert made.payload == {"workflow": FLOW, "extra_data": {"preview_method": "auto"}}
    assert made.secrets.values == {"api_key_comfy_org": KEY}
    assert KEY not in repr(made) and "api_key_comfy_org" in repr(made)
    worker_comfyui = {"input": {"workflow": FLOW, "comfy_org_api_key": KEY}}
    made = parse_submission({"service": "comfyui", "payload": worker_comfyui}, COMFY)
    assert made.payload == {"workflow": FLOW} and made.secrets.values == {"api_key_comfy_org": KEY}


def test_secrets_leave_the_payload_of_a_service_that_is_not_known_yet_too() -> None:
    request = {"prompt": {"anything": 1}, "extra_data": {"api_key_comfy_org": KEY, "x": 1}}
    made = parse_submission({"service": "later", "payload": request}, COMFY)
    assert made.payload == {"prompt": {"anything": 1}, "extra_data": {"x": 1}}
    assert made.secrets.names == ("api_key_comfy_org",)
    # Another connector's payload is its own.
    assert parse_submission({"service": "talk", "payload": request}, COMFY).payload == request


@pytest.mark.parametrize("key", [7, "short", "x" * 9_000, "white space in it", "é" * 20])
def test_a_bad_secret_is_refused_without_a_word_of_it(key: Any) -> None:
    request = {"prompt": FLOW, "extra_data": {"api_key_comfy_org": key}}
    with pytest.raises(BadSubmission) as told:
        parse_submission({"service": "comfyui", "payload": request}, COMFY)
    assert "payload.extra_data.api_key_comfy_org: expected" in str(told.value)
    assert len(str(told.value)) < 400 and "white" not in str(told.value)


def test_a_secret_that_stands_in_the_workflow_too_is_refused() -> None:
    flow = {**FLOW, "1": {"class_type": "Ask", "inputs": {"key": KEY}}}
    request = {"prompt": flow, "extra_data": {"api_key_comfy_org": KEY}}
    with pytest.raises(BadSubmission, match="stands in it elsewhere too") as told:
        parse_submission({"service": "comfyui", "payload": request}, COMFY)
    assert KEY not in str(told.value)


def test_a_batch_names_the_job_and_the_node() -> None:
    bad = {"service": "comfyui", "payload": {"2": FLOW["2"]}}
    with pytest.raises(BadSubmission) as told:
        parse_batch([{"service": "comfyui", "payload": FLOW}, bad, {"service": "other", "payload": {"any": 1}}], COMFY)
    assert told.value.problems == (
        "jobs[1].payload: node 2 (SaveImage): input images links to node 1, which is not there",
    )


def test_redaction_finds_a_value_in_every_form() -> None:
    secret = 'pa"ss/w\\ord+1'
    said = Redaction({"k": secret})
    for form in (secret, msgspec.json.encode(secret).decode(), "pa%22ss%2Fw%5Cord%2B1"):
        assert HIDDEN in said.text(f"x {form} y")
    assert said.value({"a": [secret, 1, None], secret: True}) == {"a": [HIDDEN, 1, None], HIDDEN: True}
    assert not Redaction({}) and Redaction({}).text("x") == "x"
    assert repr(Secrets({"k": secret})) == "Secrets(k)"
