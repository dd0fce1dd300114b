"""Where versions of ComfyUI differ: `services.simulation.versions` on the twin as each, and on the real one."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from emp_orch.services.simulation import png
from emp_orch.services.simulation.versions import PromptIds, Version
from support.comfyui.client import Client, hear
from support.comfyui.workflows import a_color, saved, test_node

pytestmark = pytest.mark.each_version

NOBODY = "11111111-2222-4333-8444-555555555555"


async def test_a_class_that_is_not_there(client: Client, version: Version) -> None:
    status, body = await client.queue({"1": {"class_type": "NotHere", "inputs": {}, "_meta": {"title": "My node"}}})
    assert status == 400 and body["error"]["details"] == "Node ID '#1'" and body["node_errors"] == {}
    if version.names_missing_nodes:
        assert body["error"]["type"] == "missing_node_type"
        assert body["error"]["message"].startswith("Node 'My node' not found")
        assert body["error"]["extra_info"]["class_type"] == "NotHere"
    else:
        assert body["error"]["type"] == "invalid_prompt"
        assert body["error"]["message"] == "Cannot execute because node NotHere does not exist."


async def test_who_names_a_prompt(client: Client, version: Version) -> None:
    chosen = str(uuid.uuid4())
    status, body = await client.queue(saved(a_color()), prompt_id=chosen)
    assert status == 200
    assert (body["prompt_id"] == chosen) is (version.prompt_ids is not PromptIds.SERVER)
    await client.ended(body["prompt_id"])
    status, body = await client.queue(saved(a_color()), prompt_id="Not-A-UUID")
    if version.prompt_ids is PromptIds.UUID:
        assert status == 400 and body["error"]["type"] == "invalid_prompt_id" and body["node_errors"] == {}
    else:
        assert status == 200
        await client.ended(body["prompt_id"])


async def test_keys_of_a_prompt_are_shown_where_the_version_shows_them(client: Client, version: Version) -> None:
    """Before 0.8 whoever reads /queue while it runs reads the key too."""
    sleeping = test_node("TestSleep", seconds=30, interruptible=True)
    prompt_id = await client.begin(sleeping, extra_data={"api_key_comfy_org": "sesame", "extra_pnginfo": {}})
    await client.running(prompt_id)
    shown = "sesame" in str(await client.get("/queue"))
    assert shown is not version.hides_keys
    await client.post("/interrupt")
    assert ("sesame" in str(await client.ended(prompt_id))) is not version.forgets_keys


async def test_an_interrupt_that_names_another_prompt(client: Client, version: Version) -> None:
    prompt_id = await client.begin(test_node("TestSleep", seconds=1, interruptible=True))
    await client.running(prompt_id)
    await client.post("/interrupt", {"prompt_id": NOBODY})
    record = await client.ended(prompt_id)
    assert record["status"]["completed"] is version.targeted_interrupt


async def test_a_job_is_cancelled_where_it_is(client: Client, version: Version) -> None:
    """One route for what waits and what runs, in the versions that have it; the old way everywhere."""
    first = await client.begin(test_node("TestSleep", seconds=30, interruptible=True))
    await client.running(first)
    waiting = await client.begin(saved(a_color()))
    status, body = await client.post(f"/api/jobs/{waiting}/cancel")
    if not version.cancel:
        assert status in (404, 405)
        return
    assert (status, body) == (200, {"cancelled": True})
    assert (await client.get("/queue"))["queue_pending"] == []
    assert (await client.post(f"/api/jobs/{first}/cancel"))[1] == {"cancelled": True}
    assert (await client.ended(first))["status"]["messages"][-1][0] == "execution_interrupted"
    for unknown in (first, NOBODY):
        assert await client.post(f"/api/jobs/{unknown}/cancel") == (200, {"cancelled": False})
    assert (await client.post("/api/jobs/cancel", {"job_ids": [NOBODY]})) == (200, {"cancelled": False})
    assert (await client.post("/api/jobs/cancel", {"job_ids": "all"}))[0] == 400


async def test_jobs_are_listed_where_the_version_lists_them(client: Client, version: Version) -> None:
    prompt_id = await client.begin(saved(a_color()))
    await client.ended(prompt_id)
    async with client.http.get(f"/api/jobs/{prompt_id}") as answer:
        assert answer.status == (200 if version.jobs else 404)
        if version.jobs:
            job = await answer.json()
            assert job["id"] == prompt_id and job["status"] == "completed" and job["outputs_count"] == 1
            listed = await client.get("/api/jobs", status="completed", limit=1)
            assert [j["id"] for j in listed["jobs"]] == [prompt_id] and listed["pagination"]["limit"] == 1


async def test_a_client_may_ask_for_previews_with_metadata(client: Client, version: Version) -> None:
    async with client.socket() as socket:
        flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        await socket.send_str(msgspec.json.encode(flags).decode())
        prompt_id = await client.begin(test_node("TestProgress", steps=2, seconds=0.1, preview=True))
        heard = await hear(socket, prompt_id)
    if not version.feature_flags:
        assert len(heard.pictures()) == 2 and not heard.pictures_with_metadata() and not heard.of("feature_flags")
        return
    assert heard.of("feature_flags")[0]["supports_preview_metadata"] is True
    assert not heard.pictures()
    found = heard.pictures_with_metadata()
    assert [about["node_id"] for about, _ in found] == ["2", "2"]
    assert all(about["prompt_id"] == prompt_id and about["image_type"] == "image/png" for about, _ in found)
    assert all(content.startswith(png.SIGNATURE) for _, content in found)
