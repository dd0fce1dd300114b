from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui.run.progress import Costs, ProgressOfRun
from emp_orch.connectors.comfyui.server.protocol import (
    Message,
    Record,
    Status,
    check,
    files_of,
    node_failure,
    parse_workflow,
    refusal,
    texts_of,
)
from emp_orch.errors import UsageError
from emp_orch.jobs.document.model import Progress
from emp_orch.worker.config import ServiceBinding, check_machine_id, parse_binding


def test_a_refusal_keeps_the_services_words() -> None:
    body = {
        "error": {"type": "x", "message": "Prompt outputs failed validation", "details": ""},
        "node_errors": {
            "5": {"class_type": "KSampler", "errors": [{"message": "Required input is missing", "details": "model"}]}
        },
    }
    error = refusal(400, msgspec.json.encode(body)).error
    assert error.message == "Prompt outputs failed validation: KSampler 5: Required input is missing: model"
    assert not error.retryable and error.detail["node_errors"] == body["node_errors"]


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (404, False), (429, True), (500, True), (503, True)])
def test_a_refusal_that_is_no_json(status: int, retryable: bool) -> None:
    error = refusal(status, b"<html>no").error
    assert error.retryable is retryable and error.message == f"the service answered {status}: <html>no"


def test_trouble_of_the_gpu_is_worth_another_worker() -> None:
    error = node_failure(
        {
            "node_id": "5",
            "node_type": "KSampler",
            "exception_type": "torch.OutOfMemoryError",
            "exception_message": "no\n",
        }
    ).error
    assert error.retryable and error.message == "KSampler (node 5): no"
    assert not node_failure({"exception_type": "ValueError", "exception_message": "bad"}).error.retryable
    broken = {"exception_type": "RuntimeError", "exception_message": "CUDA error: unspecified launch failure"}
    assert node_failure(broken).error.retryable


def test_only_success_passes() -> None:
    check(Record())  # old versions keep no status
    check(Record(status=Status(status_str="success", completed=True)))
    for status in (
        Status(status_str="error", completed=False),
        Status(status_str="error", completed=True),
        Status(status_str="success", completed=False),
        Status(status_str="error", messages=[("execution_interrupted", {})]),
    ):
        with pytest.raises(RunFailed):
            check(Record(status=status))


def test_saved_files_count_and_previews_only_without_them() -> None:
    temp = {"filename": "p.png", "type": "temp"}
    saved = {"filename": "a.gif", "subfolder": "s", "type": "output"}
    both = Record(
        outputs={"1": {"images": [temp]}, "2": {"gifs": [saved], "text": ["hello", "you"], "animated": [True]}}
    )
    assert [(n, f.filename) for n, f in files_of(both)] == [("2", "a.gif")]
    assert [(n, f.filename) for n, f in files_of(Record(outputs={"1": {"images": [temp]}}))] == [("1", "p.png")]
    assert list(texts_of(both)) == [("2", "hello\nyou")]


@pytest.mark.parametrize("value", [None, 3, [], "{", {"nodes": [], "links": []}])
def test_what_is_no_workflow_fails_for_good(value: object) -> None:
    with pytest.raises(RunFailed) as caught:
        parse_workflow(value)
    assert not caught.value.error.retryable


async def test_progress_never_falls_and_names_the_node() -> None:
    told: list[Progress] = []

    async def tell(progress: Progress) -> None:
        told.append(progress)

    run = ProgressOfRun({str(i): {"class_type": f"C{i}"} for i in range(4)}, tell)
    for message in (
        Message(type="execution_cached", data={"nodes": ["0"]}),
        Message(type="executing", data={"node": "1"}),
        Message(type="progress", data={"node": "1", "value": 1, "max": 2}),
        Message(type="progress", data={"node": "1", "value": 0, "max": 0}),
        Message(type="progress", data={"node": "1", "value": "x", "max": 2}),
        Message(type="executing", data={"node": "2"}),
        Message(type="executing", data={"node": "1"}),
    ):
        await run.take(message)
    fractions = [p.fraction for p in told]
    assert fractions == sorted(fractions) == [0.25, 0.375, 0.5, 0.5]
    assert told[1].message == "C1 1/2"


def test_bindings() -> None:
    url = "http://127.0.0.1:8188"
    assert parse_binding(f"comfyui=simulation@{url}") == ServiceBinding(
        service="comfyui", connector="simulation", url=url
    )
    for bad in ("comfyui", "comfyui=@x", "=a@b", "a=b"):
        with pytest.raises(UsageError):
            parse_binding(bad)


@pytest.mark.parametrize("name", ["", "  ", "unknown", "Unknown", "undefined"])
def test_a_worker_has_a_machine(name: str) -> None:
    with pytest.raises(UsageError):
        check_machine_id(name)


async def test_a_sampler_that_took_long_is_most_of_the_bar_the_next_time() -> None:
    """Eight nodes, one of which samples: by count it would be 12 % of the bar."""
    workflow: dict[str, Any] = {str(i): {"class_type": f"C{i}"} for i in range(7)}
    workflow["7"] = {"class_type": "KSampler", "inputs": {"steps": 20}}
    costs, now = Costs(), [0.0]

    async def run(steps: int) -> list[float]:
        told: list[float] = []

        async def tell(progress: Progress) -> None:
            told.append(progress.fraction)

        sampled = workflow | {"7": {"class_type": "KSampler", "inputs": {"steps": steps}}}
        progress = ProgressOfRun(sampled, tell, costs, clock=lambda: now[0])
        for i in range(7):
            await progress.take(Message(type="executing", data={"node": str(i)}))
            now[0] += 0.1
        await progress.take(Message(type="executing", data={"node": "7"}))
        for step in range(1, steps + 1):
            now[0] += 1.0
            await progress.take(Message(type="progress", data={"node": "7", "value": step, "max": steps}))
        await progress.over()
        return told

    first, second = await run(20), await run(40)
    assert first[7] == 0.875, "nothing is known yet"
    assert second[7] < 0.02 and second[7 + 20] == pytest.approx(0.5, abs=0.02), "40 steps: half of them is half"
    for told in (first, second):
        assert told == sorted(told) and told[-1] == 1.0


def test_what_is_remembered_of_nodes_is_bounded() -> None:
    costs = Costs()
    for i in range(5_000):
        costs.learn({"class_type": f"C{i}"}, 1.0)
    assert len(costs._known) == 2_000
    assert costs.weights({"1": {"class_type": "C4999"}, "2": "no node"}) == {"1": 1.0, "2": 1.0}
