"""What a service says of itself, its previews, its command line and its start."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import aiohttp
import pytest

from support.comfyui.client import Client, Make, hear
from support.comfyui.service import ComfyService
from support.comfyui.workflows import a_color, color_of, node, saved, test_node


async def test_system_stats_tell_how_it_was_started(client: Client, service: ComfyService) -> None:
    told = await client.get("/system_stats")
    assert told["system"]["argv"] == service.argv()[1:]
    assert told["system"]["comfyui_version"] and told["system"]["ram_total"] > told["system"]["ram_free"] > 0
    assert set(told["system"]) >= {"os", "python_version", "pytorch_version", "embedded_python"}
    (device,) = told["devices"]
    assert device["type"] == "cpu" and device["name"] == "cpu" and device["index"] is None
    assert set(device) == {
        *("name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"),
    }


async def test_object_info_tells_inputs_and_outputs(client: Client) -> None:
    every = await client.get("/object_info")
    one = await client.get("/object_info/EmptyImage")
    assert list(one) == ["EmptyImage"] and every["EmptyImage"] == one["EmptyImage"]
    assert one["EmptyImage"]["input"]["required"]["width"][:1] == ["INT"]
    assert one["EmptyImage"]["output"] == ["IMAGE"] and one["EmptyImage"]["output_node"] is False
    assert every["SaveImage"]["output_node"] is True and every["TestSleep"]["category"] == "test"
    assert isinstance(every["LoadImage"]["input"]["required"]["image"][0], list)
    assert list(every["TestSleep"]["input"]["optional"]) == ["images"]
    assert await client.get("/object_info/Nope") == {}


async def test_a_checkpoint_is_one_that_is_there(client: Client) -> None:
    choices = (await client.get("/object_info/CheckpointLoaderSimple"))["CheckpointLoaderSimple"]
    assert choices["input"]["required"]["ckpt_name"][0] == await client.get("/models/checkpoints")
    workflow = {
        "1": node("CheckpointLoaderSimple", ckpt_name="none-such.safetensors"),
        "2": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": node("VAEDecode", samples=["2", 0], vae=["1", 2]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    status, body = await client.queue(workflow)
    (error,) = body["node_errors"]["1"]["errors"]
    assert status == 400 and error["type"] == "value_not_in_list" and "none-such.safetensors" in error["details"]


async def test_pictures_through_the_socket(client: Client) -> None:
    """SaveImageWebsocket writes no file: its pictures are binary frames, PNG, whole."""
    color = a_color()
    workflow = {"1": saved(color, batch=2)["1"], "2": node("SaveImageWebsocket", images=["1", 0])}
    async with client.socket() as socket:
        prompt_id = await client.begin(workflow)
        heard = await hear(socket, prompt_id)
    assert [(kind, color_of(content)) for kind, content in heard.pictures()] == [(2, color)] * 2
    assert (await client.ended(prompt_id))["outputs"] == {}
    again = await client.run(workflow)
    assert again["status"]["messages"][1][1]["nodes"] == ["1"], "it is never answered from the cache"


async def test_progress_and_previews_of_a_node(client: Client) -> None:
    async with client.socket() as socket:
        prompt_id = await client.begin(test_node("TestProgress", steps=4, seconds=0.2, preview=True))
        heard = await hear(socket, prompt_id)
    assert [(d["node"], d["value"], d["max"]) for d in heard.of("progress")] == [("2", n, 4) for n in (1, 2, 3, 4)]
    assert [(kind, color_of(content)) for kind, content in heard.pictures()] == [
        (2, (255 * n // 4) << 16) for n in (1, 2, 3, 4)
    ]


async def test_who_connects_anew_takes_the_messages_over(client: Client) -> None:
    async with client.socket() as first:
        await first.receive(timeout=5)
        prompt_id = await client.begin(test_node("TestSleep", seconds=0.5, interruptible=True))
        await client.running(prompt_id)
        async with client.socket() as second:
            heard = await hear(second, prompt_id)
        assert heard.messages[0][0] == "status"
        kind, told = heard.messages[1]
        assert kind == "executing" and told["node"] in ("1", "2"), "it is told what runs"
        assert "execution_success" in heard.types()


async def test_the_end_of_an_older_connection_silences_the_newer(client: Client) -> None:
    """So that whoever reconnects must not rely on messages alone."""
    first = await client.socket()
    assert (await first.receive_json(timeout=5))["type"] == "status"
    async with client.socket() as second:
        assert (await second.receive_json(timeout=5))["type"] == "status"
        await first.close()
        await client.run(saved(a_color()))
        with pytest.raises((TimeoutError, aiohttp.WSMessageTypeError)):
            await second.receive_json(timeout=0.3)


def test_an_option_that_it_does_not_know_ends_it_with_usage(make: Make) -> None:
    service = make()
    done = subprocess.run(
        service.argv("--no-such-option"), cwd=service.checkout, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: main.py") and "unrecognized arguments: --no-such-option" in done.stderr


def test_a_user_folder_that_is_not_there_ends_it(make: Make, tmp_path: Path) -> None:
    service = make()
    argv = [*service.argv(), "--user-directory", str(tmp_path / "none")]
    done = subprocess.run(argv, cwd=service.checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_a_taken_port_ends_it(make: Make, service: ComfyService) -> None:
    other = make()
    other.port = service.port
    process = other.launch()
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() == 1 and "already in use" in other.log
    finally:
        other.stop()
