"""What emp's connector makes of ComfyUI: each case of the suite as a job's run sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.connectors import base
from emp_orch.connectors.base import InputFile, RunFailed, StillRuns
from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.fleet.model.observed import ConnectorStatus
from emp_orch.jobs.document.model import Result
from emp_orch.services.simulation import png
from emp_orch.services.simulation.versions import Version
from support.comfyui.client import Client, Make
from support.comfyui.service import ComfyService, running
from support.comfyui.workflows import Workflow, a_color, color_of, first_color_of, image, node, saved, test_node
from support.redis.server import until
from support.worker.connector import Stage, job_of


@pytest.fixture
async def connector(service: ComfyService, client: Client) -> AsyncIterator[ComfyUI]:
    """`client` leaves the service idle behind it."""
    async with connected(service) as found:
        yield found


@contextlib.asynccontextmanager
async def connected(service: ComfyService) -> AsyncIterator[ComfyUI]:
    found = ComfyUI(service.url, {})
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
def stage_of(tmp_path: Path) -> Any:
    """A job of its own for each workflow."""
    made: list[Stage] = []

    def stage(workflow: Workflow, **payload: Any) -> Stage:
        job = job_of({"workflow": workflow, **payload}, job_id=f"job-{len(made)}")
        made.append(Stage(tmp_path / "artifacts", job))
        return made[-1]

    return stage


def colors(stage: Stage, result: Result) -> list[int]:
    return [color_of(stage.saved(output)) for output in result.outputs]


@pytest.mark.parametrize("form", [lambda w: w, lambda w: {"prompt": w}, lambda w: {"input": {"workflow": w}}])
async def test_a_payload_that_nobody_knew_to_be_a_workflow_runs_all_the_same(
    connector: ComfyUI, tmp_path: Path, form: Any
) -> None:
    """Submitted before the fleet's generation said which connector its service has, it came as it was."""
    colour = a_color()
    stage = Stage(tmp_path / "artifacts", job_of(form(saved(colour))))
    assert colors(stage, await connector.run(stage.run())) == [colour]


async def at_work(connector: ComfyUI, stage: Stage, client: Client, *, at: str = "TestSleep") -> asyncio.Task[Result]:
    """A run whose sleeping node sleeps."""
    run = asyncio.create_task(connector.run(stage.run()))

    async def begun() -> bool:
        return any(at in told.message for told in stage.told)

    await until(begun)
    await client.running(stage.refs[-1])
    return run


async def test_a_run_gives_its_pictures_under_the_names_that_the_job_gave(connector: ComfyUI, stage_of: Any) -> None:
    color = a_color()
    stage = stage_of(saved(color, batch=3, prefix="sub/mine"))
    result = await connector.run(stage.run())
    assert colors(stage, result) == [color] * 3
    assert [o.name for o in result.outputs] == [f"mine_0000{n}_.png" for n in (1, 2, 3)]
    fractions = [told.fraction for told in stage.told]
    assert fractions == sorted(fractions) and len(stage.refs) == 1
    report = await connector.probe()
    assert report.status is ConnectorStatus.IDLE and report.version


async def test_the_same_job_again_gets_its_pictures_again(
    connector: ComfyUI, service: ComfyService, stage_of: Any
) -> None:
    """Answered from ComfyUI's cache, or not: also when the first run's file is gone."""
    color = a_color()
    workflow = {"1": image(color), "2": node("PreviewImage", images=["1", 0])}
    first, second, third = stage_of(workflow), stage_of(workflow), stage_of(workflow)
    assert colors(first, await connector.run(first.run())) == [color]
    assert colors(second, await connector.run(second.run())) == [color]
    for file in service.temp.glob("*.png"):
        file.unlink()
    assert colors(third, await connector.run(third.run())) == [color]


async def test_a_run_is_cancelled_while_it_works(connector: ComfyUI, client: Client, stage_of: Any) -> None:
    stage = stage_of(test_node("TestSleep", seconds=30, interruptible=True))
    run = await at_work(connector, stage, client)
    await connector.cancel()
    with pytest.raises(RunFailed, match="interrupted"):
        await run
    await client.ended(stage.refs[-1])  # it is told of before it is recorded
    assert await connector.recover(stage.run("2"), stage.refs[-1], wait=False) is None


async def test_a_service_at_anothers_prompt_takes_no_run_until_that_is_over(
    connector: ComfyUI, client: Client, stage_of: Any
) -> None:
    foreign = await client.begin_at(test_node("TestSleep", seconds=30, interruptible=True), "2")
    color = a_color()
    stage = stage_of(saved(color))
    with pytest.raises(RunFailed, match=foreign) as caught:
        await connector.run(stage.run())
    assert caught.value.error.retryable and not caught.value.reached and not stage.refs
    assert foreign in (await connector.probe()).occupied_by
    queue = await client.get("/queue")
    assert [row[1] for row in queue["queue_running"]] == [foreign] and queue["queue_pending"] == []
    await client.post("/interrupt")
    await client.ended(foreign)
    assert not (await connector.probe()).occupied_by
    assert colors(stage, await connector.run(stage.run("2"))) == [color]


async def test_a_strangers_prompt_is_noticed_right_after_a_run(
    connector: ComfyUI, client: Client, stage_of: Any
) -> None:
    """Where the run's own socket has just told that nothing waits."""
    for _ in range(2):
        color = a_color()
        stage = stage_of(saved(color))
        assert colors(stage, await connector.run(stage.run())) == [color]
    foreign = await client.begin_at(test_node("TestSleep", seconds=30, interruptible=True), "2")
    with pytest.raises(RunFailed, match=foreign):
        await connector.run(stage.run("2"))
    await client.post("/interrupt")
    await client.ended(foreign)
    stage = stage_of(saved(color := a_color()))
    assert colors(stage, await connector.run(stage.run())) == [color]


async def test_a_node_that_ignores_the_cancel_is_waited_for(connector: ComfyUI, client: Client, stage_of: Any) -> None:
    stage = stage_of(test_node("TestSleep", seconds=1, interruptible=False))
    run = await at_work(connector, stage, client)
    await connector.cancel()
    with pytest.raises(RunFailed, match="interrupted"):
        await run


async def test_another_takes_a_run_up_and_ends_it(
    connector: ComfyUI, service: ComfyService, client: Client, stage_of: Any
) -> None:
    color = a_color()
    stage = stage_of(test_node("TestSleep", color=color, seconds=2, interruptible=True))
    run = await at_work(connector, stage, client)
    run.cancel()
    await asyncio.wait([run])
    async with connected(service) as other:
        with pytest.raises(StillRuns):
            await other.recover(stage.run("2"), stage.refs[-1], wait=False)
        result = await other.recover(stage.run("3"), stage.refs[-1], wait=True)
        assert result is not None and colors(stage, result) == [color]
        again = await other.recover(stage.run("4"), stage.refs[-1], wait=False)
        assert again is not None and [o.sha256 for o in again.outputs] == [o.sha256 for o in result.outputs]
        assert await other.recover(stage.run("5"), "11111111-2222-4333-8444-555555555555", wait=True) is None


async def test_a_failing_node_is_named(connector: ComfyUI, stage_of: Any) -> None:
    stage = stage_of(test_node("TestRaise", message="out of paint"))
    with pytest.raises(RunFailed, match=r"TestRaise \(node 2\): out of paint") as caught:
        await connector.run(stage.run())
    assert not caught.value.error.retryable


async def test_out_of_memory_is_tried_again_and_memory_is_freed(
    connector: ComfyUI, client: Client, make: Make, stage_of: Any, request: pytest.FixtureRequest
) -> None:
    stage = stage_of(test_node("TestOutOfMemory"))
    with pytest.raises(RunFailed, match="CUDA out of memory") as caught:
        await connector.run(stage.run())
    assert caught.value.error.retryable
    if "twin" in request.node.name:  # the original tells of it only in its log

        async def freed() -> bool:
            told = (await client.get("/health"))["freed"]
            return bool(told["unload_models"])

        await until(freed)


async def test_a_workflow_that_is_invalid_in_part(connector: ComfyUI, stage_of: Any) -> None:
    """It fails and names the nodes; with `partial` the rest runs."""
    color = a_color()
    workflow = saved(color) | {
        "8": node("EmptyImage", width=32, height=32, batch_size=0, color=0),
        "9": node("SaveImage", images=["8", 0], filename_prefix="never"),
    }
    with pytest.raises(RunFailed, match="EmptyImage 8") as caught:
        await connector.run(stage_of(workflow).run())
    assert not caught.value.error.retryable
    stage = stage_of(workflow, partial=True)
    assert colors(stage, await connector.run(stage.run())) == [color]


async def test_pictures_through_the_socket_become_outputs(connector: ComfyUI, stage_of: Any) -> None:
    """Each of its own run, though all come over one socket; also where the run before was stopped."""
    for batch in (2, 1, 3):
        color = a_color()
        stage = stage_of({"1": image(color, batch=batch), "2": node("SaveImageWebsocket", images=["1", 0])})
        assert colors(stage, await connector.run(stage.run())) == [color] * batch


async def test_previews_of_a_run_that_was_stopped_are_nobody_elses(
    connector: ComfyUI, client: Client, stage_of: Any
) -> None:
    stopped = stage_of(test_node("TestProgress", steps=400, seconds=40, preview=True))
    run = await at_work(connector, stopped, client, at="TestProgress")
    await connector.cancel()
    with pytest.raises(RunFailed, match="interrupted"):
        await run
    color = a_color()
    stage = stage_of({"1": image(color), "2": node("SaveImageWebsocket", images=["1", 0])})
    assert colors(stage, await connector.run(stage.run())) == [color]
    assert stage.previews == []


async def test_previews_are_shown_and_kept_nowhere(connector: ComfyUI, stage_of: Any) -> None:
    stage = stage_of(test_node("TestProgress", steps=4, seconds=0.2, preview=True))
    result = await connector.run(stage.run())
    assert len(result.outputs) == 1
    assert {kind for kind, _ in stage.previews} == {"image/png"}
    shown = [color_of(picture) for _, picture in stage.previews]
    assert shown == sorted(shown) and set(shown) <= {(255 * n // 4) << 16 for n in (1, 2, 3, 4)}


async def test_a_service_that_answers_nothing_for_a_while_keeps_its_run(connector: ComfyUI, stage_of: Any) -> None:
    color = a_color()
    stage = stage_of(test_node("TestHold", color=color, seconds=2))
    assert colors(stage, await connector.run(stage.run())) == [color]


async def test_a_jobs_own_file_is_put_in_for_its_run_and_removed_behind_it(
    connector: ComfyUI, service: ComfyService, stage_of: Any
) -> None:
    content = png.encode(png.Picture(width=2, height=2, rgb=b"\x20\x40\x60" * 4))

    async def read() -> AsyncIterator[bytes]:
        yield content

    given = InputFile(name="folder/given.png", size=len(content), content_type="image/png", read=read)
    stage = stage_of(saved(0) | {"1": node("LoadImage", image="folder/given.png")})
    await connector.probe()  # so that it knows the input folder
    result = await connector.run(dataclasses.replace(stage.run(), inputs={given.name: given}))
    assert colors(stage, result) == [0x204060]
    assert not list(service.input.rglob("given*"))


async def test_what_a_service_has_is_read(connector: ComfyUI) -> None:
    found = await connector.offers()
    assert found is not None and {"EmptyImage", "LoadImage", "TestSleep"} <= set(found.nodes)
    assert {"SaveImage", "PreviewImage", "TestSleep"} <= found.outputs and "EmptyImage" not in found.outputs


async def test_a_key_reaches_the_service_and_no_record(
    connector: ComfyUI, client: Client, version: Version, stage_of: Any
) -> None:
    stage = stage_of(saved(a_color()), extra_data={"extra_pnginfo": {"note": "mine"}})
    run = dataclasses.replace(stage.run(), secrets={"api_key_comfy_org": "sesame"})
    result = await connector.run(run)
    record = await client.ended(stage.refs[-1])
    assert ("sesame" in str(record)) is not version.forgets_keys
    assert png.decode(stage.saved(result.outputs[0])).texts["note"] == '"mine"'
    assert b"sesame" not in stage.saved(result.outputs[0])


async def test_slots_that_share_a_folder_give_each_job_its_own_pictures(
    make: Make, tmp_path: Path, stage_of: Any
) -> None:
    """The blocker of issue 14, by the same prefix in every job."""

    async def jobs(service: ComfyService, count: int) -> list[tuple[int, list[int | None]]]:
        async with connected(service) as connector:
            found = []
            for _ in range(count):
                color = a_color()
                stage = stage_of(saved(color, batch=4, prefix="same", side=512))
                result = await connector.run(stage.run())
                found.append((color, [first_color_of(stage.saved(o)) for o in result.outputs]))
            return found

    shared = tmp_path / "shared"
    with running(make(shared)) as first, running(make(shared)) as second:
        found = [pair for made in await asyncio.gather(jobs(first, 6), jobs(second, 6)) for pair in made]
    assert len(found) == 12 and all(pictures == [color] * 4 for color, pictures in found)


async def test_a_service_that_ends_under_its_run_fails_it(
    make: Make, stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "GONE_S", 2.0)
    with running(make()) as service:
        async with connected(service) as connector:
            stage = stage_of({"1": node("TestExit", status=3)})
            with pytest.raises(RunFailed) as caught:
                await asyncio.wait_for(connector.run(stage.run()), 60)
            assert caught.value.error.retryable
            assert (await connector.probe()).status is ConnectorStatus.ERROR
