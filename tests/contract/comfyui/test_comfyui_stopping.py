"""Stopping a run: interrupts that hit and that do not, both ways to cancel, failures, memory, hold and exit."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from support.comfyui.client import Client, Make, hear
from support.comfyui.service import running
from support.comfyui.workflows import a_color, node, saved, test_node

NOBODY = "11111111-2222-4333-8444-555555555555"


async def test_an_interrupt_ends_what_runs(client: Client) -> None:
    async with client.socket() as socket:
        prompt_id = await client.begin(test_node("TestSleep", seconds=30, interruptible=True))
        await client.running(prompt_id)
        await client.post("/interrupt", {"prompt_id": prompt_id})
        heard = await hear(socket, prompt_id)
    (told,) = heard.of("execution_interrupted")
    assert told["node_id"] == "2" and told["node_type"] == "TestSleep" and told["executed"] == ["1"]
    record = await client.ended(prompt_id)
    assert record["status"]["status_str"] == "error" and record["status"]["completed"] is False
    assert record["status"]["messages"][-1][0] == "execution_interrupted" and record["outputs"] == {}


async def test_a_node_that_ignores_interrupts_runs_on_and_the_next_one_is_hit(client: Client) -> None:
    prompt_id = await client.begin_at(test_node("TestSleep", seconds=1, interruptible=False), "2")
    await client.post("/interrupt", {"prompt_id": prompt_id})
    record = await client.ended(prompt_id)
    type_, told = record["status"]["messages"][-1]
    assert type_ == "execution_interrupted"
    assert told["node_id"] == "3" and sorted(told["executed"]) == ["1", "2"], "the node that slept ended as it liked"
    began = record["status"]["messages"][0][1]["timestamp"]
    assert told["timestamp"] - began >= 900


async def test_an_interrupt_that_nobody_heeded_is_forgotten_by_the_next_prompt(client: Client) -> None:
    """The last node ignored it: the run succeeds, and the flag hits nobody."""
    workflow = test_node("TestSleep", seconds=0.5, interruptible=False)
    del workflow["3"]
    prompt_id = await client.begin_at(workflow, "2")
    await client.post("/interrupt", {"prompt_id": prompt_id})
    assert (await client.ended(prompt_id))["status"]["completed"]
    assert (await client.run(saved(a_color())))["status"]["completed"]


async def test_a_node_that_raises_is_told_with_its_type(client: Client) -> None:
    async with client.socket() as socket:
        prompt_id = await client.begin(test_node("TestRaise", message="out of paint"))
        heard = await hear(socket, prompt_id)
    (error,) = heard.of("execution_error")
    assert error["node_id"] == "2" and error["node_type"] == "TestRaise" and error["executed"] == ["1"]
    assert error["exception_type"] == "RuntimeError" and error["exception_message"] == "out of paint\n"
    assert error["traceback"] and error["current_inputs"]["message"] == ["out of paint"]
    record = await client.ended(prompt_id)
    assert record["status"]["messages"][-1][0] == "execution_error" and record["status"]["status_str"] == "error"


async def test_outputs_made_before_a_failure_are_kept_in_the_record(client: Client) -> None:
    workflow = saved(a_color(), prefix="before") | {
        "3": node("ImageInvert", image=["1", 0]),  # of what is ready, ComfyUI takes an output node first
        "4": node("TestRaise", images=["3", 0], message="later"),
    }
    record = await client.run(workflow)
    assert record["status"]["status_str"] == "error"
    assert record["outputs"]["2"]["images"][0]["filename"].startswith("before_")


async def test_out_of_memory_has_torchs_name_and_words(client: Client) -> None:
    record = await client.run(test_node("TestOutOfMemory"))
    error = record["status"]["messages"][-1][1]
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert error["exception_message"].startswith("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert "This error means you ran out of memory on your GPU." in error["exception_message"]
    assert (await client.run(saved(a_color())))["status"]["completed"], "it works on"


async def test_a_node_that_holds_the_process_silences_it(client: Client) -> None:
    prompt_id = await client.begin(
        {"1": node("TestSleep", seconds=0.3, interruptible=True), "2": node("TestHold", images=["1", 0], seconds=1.5)}
    )
    silent = 0.0
    while not silent:
        started = time.monotonic()
        await client.get("/system_stats")
        took = time.monotonic() - started
        silent = took if took > 0.7 else 0.0
    assert (await client.ended(prompt_id))["status"]["completed"]


async def test_a_node_that_exits_ends_the_process_with_its_status(make: Make) -> None:
    with running(make()) as service:
        client = Client(service.url)
        try:
            async with client.socket() as socket:
                sleep = node("TestSleep", seconds=0.3, interruptible=True)
                await client.begin({"1": sleep, "2": node("TestExit", images=["1", 0], status=7)})
                async with asyncio.timeout(20):
                    while not socket.closed:
                        await socket.receive()
            assert service.process is not None
            assert await asyncio.to_thread(service.process.wait, 20) == 7
            with pytest.raises(aiohttp.ClientError):
                await client.get("/queue")
            # Started again it knows nothing of what it ran, and begins with an empty temp folder.
            left = service.temp / "left.png"
            left.parent.mkdir(parents=True, exist_ok=True)
            left.write_bytes(b"x")
            await asyncio.to_thread(service.start)
            assert await client.get("/history") == {} and (await client.get("/prompt"))["exec_info"] == {
                "queue_remaining": 0
            }
            assert not left.exists()
        finally:
            await client.http.close()
