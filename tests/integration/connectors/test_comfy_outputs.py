"""What a run on ComfyUI gives: its own files whole, under their own names; and what becomes of a run that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui import ComfyUI, client
from emp_orch.connectors.comfyui.run.isolation import mark_of
from support.comfyui.peer import WORKFLOW, Original, run_on, saved_as, workflow
from support.redis.server import until
from support.worker.connector import Stage, job_of, serving

OTHER = mark_of("another run")
PNG = b"\x89PNG\r\n\x1a\n"


def png(mark: str, colour: bytes = b"red") -> bytes:
    """A picture that holds its workflow, as ComfyUI writes them."""
    return PNG + b'tEXtprompt\0{"filename_prefix": "sub/' + mark.encode() + b'a"}' + colour + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "artifacts", job_of({}))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FORGETS_S", 0.0)


def only_mine(peer: Original, given: str = "") -> dict[str, Any]:
    """A picture of the latest prompt is there, with that run's mark or `given`."""
    prompt = list(peer.prompts.values())[-1]
    files = saved_as(prompt)
    mark = prompt["2"]["inputs"]["filename_prefix"].rpartition("/")[2][:-1]
    peer.files[f"output/sub/{files[0]['filename']}"] = png(given or mark)
    return {"2": {"images": files}}


async def test_a_picture_bears_the_workflows_name_and_was_made_under_the_runs_own(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    (output,) = (await run_on(peer, stage)).outputs
    assert output.name == "a_00001_.png"
    (sent,) = peer.prompts.values()
    assert sent["2"]["inputs"]["filename_prefix"] == f"sub/{mark_of(stage.refs[0])}a"
    assert sent["1"] == WORKFLOW["1"], "what comes before stays in ComfyUI's cache"


async def test_the_id_is_recorded_before_the_workflow_is_sent(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    peer.own_ids = True
    await run_on(peer, stage)
    assert stage.refs == [peer.asked[0][1]["prompt_id"], "p1"], "an old version chooses for itself"


async def test_a_run_whose_answer_is_lost_is_not_begun_twice(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    peer.drops_answer = True
    assert len((await run_on(peer, stage)).outputs) == 1
    assert peer.paths() == ["prompt"]


@pytest.mark.parametrize(("body", "words"), [(b"", "has 0 bytes"), (png(OTHER), "another run"), (PNG + b"x", "cut")])
async def test_what_is_not_this_runs_is_made_once_more_and_then_fails(stage: Stage, body: bytes, words: str) -> None:
    def outputs(prompt: dict[str, Any]) -> dict[str, Any]:
        files = saved_as(prompt, 2)
        peer.files[f"output/sub/{files[0]['filename']}"] = png(files[0]["filename"].partition("a_")[0])
        peer.files[f"output/sub/{files[1]['filename']}"] = body
        return {"2": {"images": files}}

    peer = Original(outputs)
    with pytest.raises(RunFailed, match=words) as caught:
        await run_on(peer, stage)
    assert peer.paths() == ["prompt", "free", "prompt"]
    error = caught.value.error
    assert error.retryable and "a_00002_.png" in error.message
    assert [o.name for o in error.outputs] == ["a_00001_.png"], "what is whole is kept"


async def test_a_file_of_this_host_is_read_where_it_lies(stage: Stage, tmp_path: Path) -> None:
    """The service is asked for what is not there; what is there is looked at as closely as what it gives."""
    folder = tmp_path / "output"

    def outputs(prompt: dict[str, Any]) -> dict[str, Any]:
        files = saved_as(prompt, 2)
        mark = files[0]["filename"].partition("a_")[0]
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "sub" / files[0]["filename"]).write_bytes(here or png(mark))
        peer.files[f"output/sub/{files[1]['filename']}"] = png(mark, b"blue")
        return {"2": {"images": files}}

    here = b""
    peer = Original(outputs)
    peer.argv = ["/opt/ComfyUI/main.py", "--output-directory", str(folder)]
    first, second = (await run_on(peer, stage)).outputs
    assert (first.name, first.content_type, second.name) == ("a_00001_.png", "image/png", "a_00002_.png")
    assert b"red" in stage.saved(first) and b"blue" in stage.saved(second)
    assert peer.viewed == ["a_00002_.png"]

    here = png(OTHER)
    with pytest.raises(RunFailed, match="another run"):
        await run_on(peer, stage)


async def test_an_output_that_the_cache_names_and_nobody_has_is_made_anew(stage: Stage) -> None:
    """A preview has no prefix: an equal workflow gets it from the cache, though its file was tidied."""
    preview = {"workflow": {"1": WORKFLOW["1"], "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}}

    def outputs(_: dict[str, Any]) -> dict[str, Any]:
        if len(peer.prompts) > 1:
            peer.files["temp//p.png"] = b"new"
        return {"2": {"images": [{"filename": "p.png", "subfolder": "", "type": "temp"}]}}

    peer = Original(outputs)
    result = await run_on(peer, stage, preview)
    assert peer.asked[1] == ("free", {"unload_models": False, "free_memory": True})
    assert [stage.saved(o) for o in result.outputs] == [b"new"]
    assert "answered 404" in result.detail["notes"][0]


async def test_a_name_given_twice_is_told(stage: Stage) -> None:
    fixed = {"2": {"images": [{"filename": "same.png", "subfolder": "", "type": "output"}]}}
    peer = Original(lambda _: fixed)
    linked = {"workflow": workflow(inputs={"images": ["1", 0], "filename_prefix": ["3", 0]})}
    stage.job = job_of(linked)
    async with serving(peer.app) as url:
        connector = ComfyUI(url, {})
        peer.files["output//same.png"] = b"one"
        assert (await connector.run(stage.run())).detail == {}
        peer.history = [["execution_cached", {"nodes": ["1", "2"]}]]
        assert (await connector.run(stage.run("2"))).detail == {}, "an equal workflow, from the cache: the same picture"
        peer.files["output//same.png"] = b"two"
        with pytest.raises(RunFailed, match="written by another run"):
            await connector.run(stage.run("3"))
        peer.history = []
        (note,) = (await connector.run(stage.run("4"))).detail["notes"]
        assert note.startswith("same.png: the service gave that file name to an earlier run too")
        await connector.close()


async def test_a_part_that_does_not_fit_fails_the_job_unless_it_asks_for_the_rest(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    wrong = {"errors": [{"message": "Value not in list", "details": "ckpt_name: 'x'"}], "class_type": "Loader"}
    peer.node_errors = {"7": wrong}
    peer.holds.clear()
    with pytest.raises(RunFailed, match="Loader 7: Value not in list: ckpt_name: 'x'") as caught:
        await run_on(peer, stage)
    assert not caught.value.error.retryable and '"partial": true' in caught.value.error.message
    assert peer.paths()[1:] == [f"api/jobs/{stage.refs[0]}/cancel", "queue", "interrupt"], "and it does not run on"

    peer = Original(lambda _: only_mine(peer))
    peer.node_errors = {"7": wrong}
    result = await run_on(peer, stage, {"workflow": WORKFLOW, "partial": True})
    assert len(result.outputs) == 1 and result.detail == {"node_errors": {"7": wrong}}


async def test_a_workflow_that_gives_nothing_says_so(stage: Stage) -> None:
    result = await run_on(Original(lambda _: {}), stage)
    assert result.outputs == () and "ended without a file or a text" in result.detail["notes"][0]


async def test_what_was_made_before_a_node_failed_is_kept(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    failure = {"node_id": "9", "node_type": "TestRaise", "exception_message": "no", "exception_type": "ValueError"}
    peer.messages, peer.history, peer.status = [("execution_error", failure)], [["execution_error", failure]], "error"
    with pytest.raises(RunFailed, match="TestRaise \\(node 9\\): no") as caught:
        await run_on(peer, stage)
    (kept,) = caught.value.error.outputs
    assert kept.name == "a_00001_.png" and stage.saved(kept).startswith(PNG)


async def test_a_gpu_without_memory_is_emptied_before_the_retry(stage: Stage) -> None:
    peer = Original(lambda _: {})
    failure = {"node_id": "1", "exception_message": "Allocation failed", "exception_type": "torch.OutOfMemoryError"}
    peer.history, peer.status = [["execution_error", failure]], "error"
    with pytest.raises(RunFailed, match="Allocation failed") as caught:
        await run_on(peer, stage)
    assert caught.value.error.retryable
    assert peer.asked[-1] == ("free", {"unload_models": True, "free_memory": True})


def frame(data: bytes, kind: int = 2, event: int = 1) -> bytes:
    return event.to_bytes(4, "big") + kind.to_bytes(4, "big") + data


async def test_pictures_over_the_socket_are_outputs_of_the_node_that_sends_them(stage: Stage) -> None:
    peer = Original(lambda _: {})
    peer.frames = [frame(b"one"), frame(b"text", event=3), b"short", frame(b"two", kind=1), frame(b"?", kind=9)]
    by_socket = {"workflow": workflow(class_type="SaveImageWebsocket", inputs={"images": ["1", 0]})}
    result = await run_on(peer, stage, by_socket)
    assert [(o.name, o.content_type, stage.saved(o)) for o in result.outputs] == [
        ("2_0001.png", "image/png", b"one"),
        ("2_0002.jpeg", "image/jpeg", b"two"),
    ]
    assert result.detail == {}


async def test_other_pictures_over_the_socket_are_previews(stage: Stage) -> None:
    peer = Original(lambda _: only_mine(peer))
    peer.frames = [frame(b"one", kind=1), frame(b"at once after", kind=1), frame(bytes(600_000))]
    result = await run_on(peer, stage)
    assert stage.previews == [("image/jpeg", b"one")], "only so many a second, none that is too large"
    assert len(result.outputs) == 1


@pytest.mark.parametrize("newer", [True, False])
async def test_a_run_is_cancelled_as_its_version_can(stage: Stage, newer: bool) -> None:
    peer = Original(lambda _: {})
    peer.cancels = newer
    peer.holds.clear()
    stage.job = job_of({"workflow": WORKFLOW})

    async def queued() -> bool:
        return bool(peer.prompts)

    async with serving(peer.app) as url:
        connector = ComfyUI(url, {})
        for run in ("1", "2"):
            peer.prompts.clear()
            peer.holds.clear()
            running = asyncio.create_task(connector.run(stage.run(run)))
            await until(queued)
            await connector.cancel()
            with pytest.raises(RunFailed, match="interrupted"):
                await running
        await connector.close()
    one, two = (f"api/jobs/{ref}/cancel" for ref in stage.refs)
    old = ["queue", "interrupt"]
    assert peer.paths() == (["prompt", one, "prompt", two] if newer else ["prompt", one, *old, "prompt", *old])


async def test_a_service_whose_folders_cannot_be_seen_is_said_to_keep_its_files() -> None:
    async def stats(_: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.3.64", "argv": []}, "devices": []})

    app = web.Application()
    app.router.add_get("/system_stats", stats)
    async with serving(app) as url:
        for options, warned in (({}, 1), ({"tidy": False}, 0)):
            connector = ComfyUI(url, options)
            report = await connector.probe()
            assert report.status == "idle" and len(report.warnings) == warned
            await connector.close()
