"""The simulation service as a client of ComfyUI sees it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emp_orch.connectors.simulation import Request, workflow_of
from support.redis.server import eventually, free_port, until
from support.worker.processes import EMP, Daemon

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("simulation")
    (folder / "secret.txt").write_text("not yours")
    port = free_port()
    daemon = Daemon(folder, "simulation", *("simulate", "--port", str(port), "--dir", "data", "--gpu", "3"))
    try:
        eventually(lambda: "simulation serves" in daemon.log)
        yield f"http://127.0.0.1:{port}"
        assert daemon.terminate(within_s=5) == 0
    finally:
        daemon.kill()


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


def workflow(**fields: Any) -> dict[str, Any]:
    return workflow_of(Request(**{"prompt": "a cat", "steps": 3, **fields}))


async def queue(http: aiohttp.ClientSession, prompt: Any, **extra: Any) -> tuple[int, dict[str, Any]]:
    async with http.post("/prompt", json={"prompt": prompt, **extra}) as answer:
        return answer.status, await answer.json()


async def history(http: aiohttp.ClientSession, prompt_id: str) -> dict[str, Any]:
    async def ended() -> Any:
        async with http.get(f"/history/{prompt_id}") as answer:
            return (await answer.json()).get(prompt_id)

    found: dict[str, Any] = await until(ended)
    return found


async def test_health_and_stats(http: aiohttp.ClientSession) -> None:
    async with http.get("/health") as answer:
        body = await answer.json()
    assert answer.status == 200 and body["status"] == "ok" and body["gpu"] == 3
    async with http.get("/system_stats") as answer:
        body = await answer.json()
    assert body["devices"][0]["index"] == 3 and body["system"]["comfyui_version"]
    async with http.get("/api/object_info/KSampler") as answer:
        info = (await answer.json())["KSampler"]
    assert info["input"]["required"]["seed"][0] == "INT" and info["output"] == ["LATENT"]
    async with http.get("/prompt") as answer:
        assert (await answer.json())["exec_info"]["queue_remaining"] == 0


async def test_a_run_tells_its_steps_and_makes_a_png(http: aiohttp.ClientSession) -> None:
    types: list[str] = []
    async with http.ws_connect("/ws?clientId=me") as socket:
        hello = await socket.receive_json(timeout=5)
        assert hello["type"] == "status" and hello["data"]["sid"] == "me"
        status, body = await queue(http, workflow(), client_id="me")
        assert status == 200 and body["node_errors"] == {}
        while True:
            message = await socket.receive_json(timeout=10)
            types.append(message["type"])
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
    assert [t for t in types if t not in ("executing", "status", "progress_state")] == [
        *("execution_start", "execution_cached", "progress", "progress", "progress", "executed", "execution_success")
    ]
    record = await history(http, body["prompt_id"])
    assert record["status"]["status_str"] == "success" and record["status"]["completed"]
    (image,) = record["outputs"]["7"]["images"]
    async with http.get("/view", params=image) as answer:
        picture = await answer.read()
        assert answer.content_type == "image/png"
    assert picture.startswith(PNG) and picture[16:24] == bytes([0, 0, 1, 0, 0, 0, 1, 0])


async def picture_of(http: aiohttp.ClientSession, **fields: Any) -> bytes:
    _, body = await queue(http, workflow(**fields))
    (image,) = (await history(http, body["prompt_id"]))["outputs"]["7"]["images"]
    async with http.get("/view", params=image) as answer:
        return (await answer.read()).split(b"IDAT")[1]


async def test_the_picture_depends_on_seed_and_text_only(http: aiohttp.ClientSession) -> None:
    first = await picture_of(http, seed=1)
    assert await picture_of(http, seed=1) == first
    assert await picture_of(http, seed=2) != first
    assert await picture_of(http, seed=1, prompt="a dog") != first


@pytest.mark.parametrize(
    ("prompt", "type_", "words"),
    [
        ([], "invalid_prompt", "object of nodes"),
        ({}, "prompt_no_outputs", "no outputs"),
        ({"1": {"inputs": {}}}, "missing_node_type", "has no class_type"),
        ({"1": {"class_type": "Nope", "inputs": {}}}, "missing_node_type", "Node 'Nope' not found"),
        ({"1": {"class_type": "KSampler"}}, "prompt_no_outputs", "no outputs"),
        ({"1": {"class_type": "EmptyLatentImage", "inputs": {}}}, "prompt_no_outputs", "no outputs"),
    ],
)
async def test_a_prompt_that_is_none_is_refused(
    http: aiohttp.ClientSession, prompt: Any, type_: str, words: str
) -> None:
    status, body = await queue(http, prompt)
    assert status == 400 and body["error"]["type"] == type_ and words in body["error"]["message"]
    assert set(body["error"]) == {"type", "message", "details", "extra_info"} and body["node_errors"] == {}


async def test_every_node_error_is_told_at_once(http: aiohttp.ClientSession) -> None:
    prompt = workflow()
    del prompt["5"]["inputs"]["model"]
    prompt["5"]["inputs"] |= {"steps": 0, "sampler_name": "nope", "positive": ["1", 0], "negative": ["2"]}
    prompt["4"]["inputs"]["width"] = "wide"
    status, body = await queue(http, prompt)
    assert status == 400 and body["error"]["type"] == "prompt_outputs_failed_validation"
    assert sorted(e["type"] for e in body["node_errors"]["5"]["errors"]) == [
        "bad_linked_input",
        "required_input_missing",
        "return_type_mismatch",
        "value_not_in_list",
        "value_smaller_than_min",
    ]
    assert [e["type"] for e in body["node_errors"]["4"]["errors"]] == ["invalid_input_type"]


async def test_a_ring_of_links_is_refused(http: aiohttp.ClientSession) -> None:
    prompt = workflow()
    prompt["5"]["inputs"]["latent_image"] = ["5", 0]
    status, body = await queue(http, prompt)
    assert status == 400
    assert [e["type"] for e in body["node_errors"]["5"]["errors"]] == ["dependency_cycle"]
    assert "5 (KSampler) -> 5 (KSampler)" in body["node_errors"]["5"]["errors"][0]["details"]


async def test_no_prompt_and_no_json(http: aiohttp.ClientSession) -> None:
    async with http.post("/prompt", json={}) as answer:
        assert answer.status == 400 and (await answer.json())["error"]["type"] == "no_prompt"
    async with http.post("/prompt", data=b"{") as answer:
        assert answer.status == 400 and (await answer.json())["error"]["type"] == "invalid_json"


async def test_a_failing_node_is_an_execution_error(http: aiohttp.ClientSession) -> None:
    _, body = await queue(http, workflow(fail="out of paint"))
    record = await history(http, body["prompt_id"])
    assert record["status"]["status_str"] == "error" and not record["status"]["completed"]
    (error,) = [data for type_, data in record["status"]["messages"] if type_ == "execution_error"]
    assert error["exception_message"] == "out of paint\n" and error["node_type"] == "SimulatedError"


async def test_interrupt_stops_only_the_prompt_it_names(http: aiohttp.ClientSession) -> None:
    _, running = await queue(http, workflow(steps=10_000, seed=11))
    _, waiting = await queue(http, workflow())

    async def runs() -> bool:
        async with http.get("/queue") as answer:
            rows = (await answer.json())["queue_running"]
        return [row[1] for row in rows] == [running["prompt_id"]]

    await until(runs)
    async with http.post("/interrupt", json={"prompt_id": "another"}) as answer:
        assert answer.status == 200
    assert await runs()
    async with http.post("/interrupt", json={"prompt_id": running["prompt_id"]}):
        pass
    record = await history(http, running["prompt_id"])
    assert record["status"]["messages"][-1][0] == "execution_interrupted"
    assert (await history(http, waiting["prompt_id"]))["status"]["status_str"] == "success"


async def test_a_waiting_prompt_can_be_deleted(http: aiohttp.ClientSession) -> None:
    _, running = await queue(http, workflow(steps=10_000, seed=11))
    _, waiting = await queue(http, workflow())
    async with http.post("/queue", json={"delete": [waiting["prompt_id"]]}):
        pass
    async with http.get("/queue") as answer:
        assert (await answer.json())["queue_pending"] == []
    async with http.post("/interrupt"):
        pass
    await history(http, running["prompt_id"])


@pytest.mark.parametrize(
    "query",
    [
        {"filename": "../../secret.txt"},
        {"filename": "secret.txt", "subfolder": "../.."},
        {"filename": "secret.txt", "subfolder": "/"},
        {"filename": "..", "subfolder": ""},
        {"filename": "x.png", "type": "../output"},
        {"filename": "nothing.png"},
        {},
    ],
)
async def test_view_never_leaves_its_folder(http: aiohttp.ClientSession, query: dict[str, str]) -> None:
    async with http.get("/view", params=query) as answer:
        assert answer.status in (400, 403, 404)
        assert b"not yours" not in await answer.read()


async def test_a_prefix_cannot_write_outside(http: aiohttp.ClientSession) -> None:
    prompt = workflow()
    prompt["7"]["inputs"]["filename_prefix"] = "../../evil"
    _, body = await queue(http, prompt)
    record = await history(http, body["prompt_id"])
    assert record["status"]["status_str"] == "error" and "outputs" in record and record["outputs"] == {}


async def test_another_sites_page_is_refused(http: aiohttp.ClientSession, url: str) -> None:
    async with http.post("/prompt", json={"prompt": workflow()}, headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
    async with http.get("/health", headers={"Origin": url}) as answer:
        assert answer.status == 200


def test_prepare_draws_a_picture_and_can_be_repeated(tmp_path: Path) -> None:
    argv = [*EMP, "-C", str(tmp_path), "simulate", "--prepare", "--dir", "data/simulation"]
    for _ in range(2):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and "self-test.png" in done.stdout, done.stderr
    assert (tmp_path / "data/simulation/self-test.png").read_bytes().startswith(PNG)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    argv = [*EMP, "-C", str(tmp_path), "simulate", "--prepare", "--dir", "file/data"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "file/data" in done.stderr and "Traceback" not in done.stderr


def test_a_version_that_it_does_not_speak_is_named(tmp_path: Path) -> None:
    argv = [*EMP, "-C", str(tmp_path), "simulate", "--version", "9.9", "--dir", "data"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "9.9" in done.stderr and "0.3.64" in done.stderr


async def test_its_options_make_it_an_old_strict_slow_one_with_a_cache(tmp_path: Path) -> None:
    port = free_port()
    options = ("--version", "0.8.0", "--cache", "--models", "--start-delay", "0.5")
    daemon = Daemon(tmp_path, "simulation", *("simulate", "--port", str(port), "--dir", "data", *options))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

            async def answers() -> dict[str, Any] | None:
                try:
                    async with http.get("/system_stats") as answer:
                        return dict((await answer.json())["system"])
                except aiohttp.ClientConnectionError:
                    return None

            told = await until(answers)
            assert told["comfyui_version"].startswith("0.8.0 (emp-simulation ")
            argv = told["argv"]
            assert argv[argv.index("--output-directory") + 1] == str(tmp_path / "data" / "output")
            status, body = await queue(http, workflow())
            assert status == 400 and body["node_errors"]["1"]["errors"][0]["type"] == "value_not_in_list"
            models = tmp_path / "data/models/checkpoints"
            models.mkdir(parents=True)
            (models / "simulation.safetensors").write_bytes(b"")
            prompt = workflow()
            prompt["1"]["inputs"]["ckpt_name"] = "simulation.safetensors"
            records = [await history(http, (await queue(http, prompt))[1]["prompt_id"]) for _ in range(2)]
            assert records[0]["outputs"] == records[1]["outputs"], "the second was not drawn"
        assert daemon.terminate(within_s=5) == 0
    finally:
        daemon.kill()


def test_a_taken_port_is_named(url: str, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    argv = [*EMP, "-C", str(tmp_path), "simulate", "--port", port, "--dir", "data"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and port in done.stderr and "Traceback" not in done.stderr


async def test_of_two_clients_under_one_id_the_newer_hears(http: aiohttp.ClientSession) -> None:
    """As in ComfyUI the older stays open and mute; and when it ends, nobody under that id is told anything more."""
    old = await http.ws_connect("/ws?clientId=twice")
    assert (await old.receive_json(timeout=5))["type"] == "status"
    async with http.ws_connect("/ws?clientId=twice") as new:
        assert (await new.receive_json(timeout=5))["type"] == "status"
        _, body = await queue(http, workflow(seed=21), client_id="twice")
        assert (await new.receive_json(timeout=5))["type"] in ("status", "execution_start")
        await history(http, body["prompt_id"])
        await old.close()
        _, body = await queue(http, workflow(seed=22), client_id="twice")
        await history(http, body["prompt_id"])
        async with http.ws_connect("/ws?clientId=twice") as third:
            assert (await third.receive_json(timeout=5))["type"] == "status"
        told = [await new.receive_json(timeout=5)]
        while told[-1]["type"] != "executing" or told[-1]["data"]["node"] is not None:
            told.append(await new.receive_json(timeout=5))
        assert body["prompt_id"] not in str(told)
