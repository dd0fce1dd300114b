"""ComfyUI's prompts: what is told of a run, what is refused, the queue, the history, its cache."""

from __future__ import annotations

import pytest

from support.comfyui.client import Client, hear
from support.comfyui.service import ComfyService
from support.comfyui.workflows import Workflow, a_color, color_of, image, node, saved, test_node

NOBODY = "11111111-2222-4333-8444-555555555555"


async def test_a_run_is_told_from_start_to_end(client: Client) -> None:
    async with client.socket() as socket:
        prompt_id = await client.begin(saved(a_color(), batch=2, prefix="told"))
        heard = await hear(socket, prompt_id)
    assert heard.messages[0][0] == "status" and heard.messages[0][1]["sid"] == client.id
    assert heard.types() == [
        *("execution_start", "execution_cached", "executing", "executing", "executed", "execution_success"),
        "executing",
    ]
    assert all(data["prompt_id"] == prompt_id for type_, data in heard.messages if type_ != "status")
    assert heard.of("execution_cached")[0]["nodes"] == []
    assert [data["node"] for data in heard.of("executing")] == ["1", "2", None]
    (made,) = heard.of("executed")
    assert made["node"] == "2" and [f["type"] for f in made["output"]["images"]] == ["output"] * 2
    assert isinstance(heard.of("execution_start")[0]["timestamp"], int)


async def test_a_record_holds_outputs_status_and_the_prompt(client: Client) -> None:
    color = a_color()
    workflow = saved(color, prefix="deep/er/record")
    prompt_id = await client.begin(workflow, extra_data={"emp_job_id": "j1"})
    record = await client.ended(prompt_id)
    assert record["status"]["status_str"] == "success" and record["status"]["completed"] is True
    assert [m[0] for m in record["status"]["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    number, told_id, prompt, extra_data, outputs = record["prompt"]
    assert isinstance(number, int | float) and told_id == prompt_id and prompt == workflow and outputs == ["2"]
    assert extra_data["emp_job_id"] == "j1" and extra_data["client_id"] == client.id
    assert set(record) >= {"prompt", "outputs", "status", "meta"}
    (file,) = record["outputs"]["2"]["images"]
    assert file["subfolder"] == "deep/er" and file["filename"].startswith("record_0")
    content = await client.view(file)
    assert content is not None and color_of(content) == color


async def test_what_was_made_before_comes_from_the_cache(client: Client) -> None:
    """Its files are the old ones; whether they are still there nobody looks."""
    workflow = saved(a_color(), prefix="cached")
    first = await client.run(workflow)
    async with client.socket() as socket:
        prompt_id = await client.begin(workflow)
        heard = await hear(socket, prompt_id)
    again = await client.ended(prompt_id)
    assert sorted(heard.of("execution_cached")[0]["nodes"]) == ["1", "2"]
    assert heard.types() == ["execution_start", "execution_cached", "executed", "execution_success", "executing"]
    assert again["outputs"] == first["outputs"] and again["status"]["completed"]


async def test_another_prefix_is_another_output(client: Client) -> None:
    color = a_color()
    await client.run(saved(color, prefix="first"))
    record = await client.run(saved(color, prefix="second"))
    cached = next(data for type_, data in record["status"]["messages"] if type_ == "execution_cached")
    assert cached["nodes"] == ["1"]
    assert record["outputs"]["2"]["images"][0]["filename"].startswith("second_")


async def test_a_cached_file_that_is_gone_is_not_found_until_memory_is_freed(
    client: Client, service: ComfyService
) -> None:
    workflow = saved(a_color(), prefix="gone")
    (file,) = (await client.run(workflow))["outputs"]["2"]["images"]
    (service.output / file["filename"]).unlink()
    (same,) = (await client.run(workflow))["outputs"]["2"]["images"]
    assert same == file and await client.view(same) is None
    assert (await client.post("/free", {"unload_models": True, "free_memory": True}))[0] == 200
    # It is heeded between two prompts. One that is queued at once may come before it, the one after that not.
    found = [(await client.run(workflow))["outputs"]["2"]["images"][0] for _ in range(2)]
    assert await client.view(found[1]) is not None


async def test_unloading_models_keeps_the_cache(client: Client) -> None:
    workflow = saved(a_color(), prefix="kept")
    await client.run(workflow)
    await client.post("/free", {"unload_models": True})
    record = await client.run(workflow)
    assert sorted(record["status"]["messages"][1][1]["nodes"]) == ["1", "2"]


async def test_a_part_that_is_invalid_is_left_out_with_200(client: Client) -> None:
    color = a_color()
    workflow = saved(color) | {
        "8": node("EmptyImage", width=32, height=32, batch_size=0, color=0),
        "9": node("SaveImage", images=["8", 0], filename_prefix="never"),
    }
    status, body = await client.queue(workflow)
    assert status == 200
    (error,) = body["node_errors"]["8"]["errors"]
    assert error["type"] == "value_smaller_than_min" and body["node_errors"]["8"]["class_type"] == "EmptyImage"
    assert body["node_errors"]["8"]["dependent_outputs"] == ["9"] and set(body["node_errors"]) == {"8"}
    record = await client.ended(body["prompt_id"])
    assert list(record["outputs"]) == ["2"] and record["status"]["completed"] and record["prompt"][4] == ["2"]


async def test_a_workflow_without_a_valid_output_is_refused(client: Client) -> None:
    workflow = {
        "1": node("EmptyImage", width="wide", height=32, batch_size=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    status, body = await client.queue(workflow)
    assert status == 400 and body["error"]["type"] == "prompt_outputs_failed_validation"
    types = sorted(e["type"] for e in body["node_errors"]["1"]["errors"])
    assert types == ["invalid_input_type", "required_input_missing"]


@pytest.mark.parametrize(
    ("workflow", "type_"),
    [
        pytest.param({"1": image(1)}, "prompt_no_outputs", id="no output"),
        pytest.param({}, "prompt_no_outputs", id="empty"),
        pytest.param({"1": node("SaveImage", images=["7", 0], filename_prefix="x")}, "exception_during_validation"),
        pytest.param(
            {"1": node("TestRaise", message="x"), "2": node("SaveImage", images=["1", 0], filename_prefix=["1", 0])},
            "return_type_mismatch",
        ),
        pytest.param(saved(1) | {"1": node("LoadImage", image="nowhere.png")}, "custom_validation_failed"),
    ],
)
async def test_what_is_wrong_has_a_type(client: Client, workflow: Workflow, type_: str) -> None:
    status, body = await client.queue(workflow)
    found = [e["type"] for made in body["node_errors"].values() for e in made["errors"]]
    assert type_ in [*found, body.get("error", {}).get("type")]
    assert status == (200 if type_ == "return_type_mismatch" else 400)


async def test_only_some_outputs_can_be_asked_for(client: Client) -> None:
    workflow = saved(a_color()) | {"3": node("SaveImage", images=["1", 0], filename_prefix="third")}
    record = await client.run(workflow, partial_execution_targets=["3"])
    assert list(record["outputs"]) == ["3"]


async def test_the_queue_shows_what_runs_and_what_waits(client: Client) -> None:
    """Also what other clients queued; a prompt to the front overtakes."""
    first = await client.begin(test_node("TestSleep", seconds=30, interruptible=True))
    await client.running(first)
    waiting = [await client.begin(saved(a_color())) for _ in range(2)]
    front = await client.begin(saved(a_color()), front=True)
    queue = await client.get("/queue")
    assert [row[1] for row in queue["queue_running"]] == [first]
    assert {row[1] for row in queue["queue_pending"]} == {*waiting, front}
    assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] == 4
    await client.post("/queue", {"delete": [waiting[1], NOBODY]})
    assert {row[1] for row in (await client.get("/queue"))["queue_pending"]} == {waiting[0], front}
    await client.post("/interrupt")
    await client.ended(waiting[0])
    order = [i for i in await client.get("/history") if i in (first, front, waiting[0])]
    assert order == [first, front, waiting[0]]
    assert await client.get(f"/history/{waiting[1]}") == {}


async def test_clear_drops_what_waits_and_leaves_what_runs(client: Client) -> None:
    first = await client.begin(test_node("TestSleep", seconds=30, interruptible=True))
    await client.running(first)
    waiting = await client.begin(saved(a_color()))
    await client.post("/queue", {"clear": True})
    queue = await client.get("/queue")
    assert [row[1] for row in queue["queue_running"]] == [first] and queue["queue_pending"] == []
    assert await client.get(f"/history/{waiting}") == {}


async def test_history_is_read_in_pages_and_forgotten(client: Client) -> None:
    made = [await client.begin(saved(a_color())) for _ in range(3)]
    await client.ended(made[-1])
    assert list(await client.get("/history", max_items=2)) == made[1:]
    whole = list(await client.get("/history"))
    at = whole.index(made[0])
    assert list(await client.get("/history", max_items=1, offset=at)) == made[:1]
    await client.post("/history", {"delete": [made[0], NOBODY]})
    assert made[0] not in await client.get("/history")
    await client.post("/history", {"clear": True})
    assert await client.get("/history") == {}


async def test_every_route_answers_below_api_too(client: Client) -> None:
    prompt_id = (await client.post("/api/prompt", {"prompt": saved(a_color())}))[1]["prompt_id"]
    record = await client.ended(prompt_id)
    assert (await client.get(f"/api/history/{prompt_id}"))[prompt_id]["outputs"] == record["outputs"]
    for path in ("/api/queue", "/api/system_stats", "/api/prompt", "/api/models", "/api/object_info/SaveImage"):
        await client.get(path)


async def test_a_prompt_that_is_no_json_is_refused(client: Client) -> None:
    async with client.http.post("/prompt", data=b"{") as answer:
        assert answer.status >= 400
    status, body = await client.post("/prompt", {})
    assert status == 400 and body["error"]["type"] == "no_prompt"
