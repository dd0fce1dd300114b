"""A canary for an API key: jobs of every way and end, on a whole fleet, and then no place where it can be found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from support.http.sse import stream
from support.redis.server import holding
from support.stack.stack import Stack, until

CANARY = "comfyui-canary-e19b7740"
SAVED: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "canary"}},
}
RAISES = {"1": {"class_type": "TestRaise", "inputs": {"message": "on purpose"}}}
SLEEPS = {"1": {"class_type": "TestSleep", "inputs": {"seconds": 600.0, "interruptible": True}}}
PAINTS = {"1": {"class_type": "TestProgress", "inputs": {"steps": 400, "seconds": 40.0, "preview": True}}}
ENDED = ("completed", "failed", "cancelled", "timeout")


def request(workflow: dict[str, Any]) -> dict[str, Any]:
    """As ComfyUI's own page sends it."""
    extra = {"extra_pnginfo": {"workflow": {"id": "x"}}, "preview_method": "auto", "api_key_comfy_org": CANARY}
    return {"prompt": workflow, "client_id": "page", "extra_data": extra}


def in_files(stack: Stack) -> list[str]:
    """Every file of the fleet that holds it; Redis' own are Redis' memory of what was said to it."""
    files = (p for p in stack.root.rglob("*") if p.is_file() and stack.layout.redis not in p.parents)
    return [str(p) for p in files if CANARY.encode() in _read(p)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it went meanwhile
        return b""


async def submitted(stack: Stack, session: aiohttp.ClientSession) -> dict[str, str]:
    """Jobs by every way in, and what becomes of each."""
    jobs = {}
    one = {"service": "comfyui", "payload": request(SAVED)}
    async with session.post(f"{stack.api}/api/jobs", json=one) as answer:
        jobs[(await answer.json())["job_id"]] = "completed"
    two = [
        {"service": "comfyui", "payload": request(RAISES), "max_retries": 1},
        {"service": "comfyui", "payload": {"input": {"workflow": SAVED, "comfy_org_api_key": CANARY}}},
    ]
    async with session.post(f"{stack.api}/api/jobs", json=two) as answer:
        jobs |= dict(zip((await answer.json())["job_ids"], ("failed", "completed"), strict=True))
    async with session.ws_connect(f"{stack.api}/ws/client/c") as ws:
        await ws.send_json({"type": "submit_job", "job": {"service": "comfyui", "payload": request(SLEEPS)}})
        jobs[(await ws.receive_json())["job_id"]] = "cancelled"
    (stack.root / "flow.json").write_text(json.dumps(request(SAVED)))
    (stack.root / "jobs.jsonl").write_text(json.dumps({"service": "comfyui", "payload": request(SAVED)}))
    jobs[stack.ok("submit", "comfyui", "--workflow", "flow.json").strip()] = "completed"
    jobs[stack.ok("submit", "-f", "jobs.jsonl").strip()] = "completed"
    (stack.root / "flow.json").unlink()
    (stack.root / "jobs.jsonl").unlink()
    return jobs


async def test_an_api_key_is_nowhere_after_the_end(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:

        async def get(path: str) -> Any:
            async with session.get(stack.api + path) as answer:
                return await answer.json()

        jobs = await submitted(stack, session)
        (sleeper,) = [i for i, end in jobs.items() if end == "cancelled"]
        for _ in range(600):
            if (await get(f"/api/jobs/{sleeper}"))["data"]["status"] == "in_progress":
                break
            await asyncio.sleep(0.05)
        # While it runs it is in one place, and no answer has it.
        assert f"secrets:{sleeper}" in holding(stack.redis_url, CANARY)
        shown = await get(f"/api/jobs/{sleeper}")
        assert CANARY not in json.dumps(shown) and shown["data"]["secrets"] == ["api_key_comfy_org"]
        stack.ok("cancel", sleeper)
        for job_id, end in jobs.items():
            for _ in range(600):
                job = (await get(f"/api/jobs/{job_id}"))["data"]
                if job["status"] in ENDED:
                    break
                await asyncio.sleep(0.05)
            assert job["status"] == end, job
        assert holding(stack.redis_url, CANARY) == [] and in_files(stack) == []
        (failed,) = [i for i, end in jobs.items() if end == "failed"]
        said = [await get(p) for p in ("/api/jobs", "/api/events?limit=1000", "/api/journal", "/api/monitor/state")]
        said += [await get(f"/api/jobs/{job_id}") for job_id in jobs]
        said += [stack.ok("jobs", "show", job_id) for job_id in jobs]
        said += [stack.ok("events", "--json"), stack.run("jobs", "retry", failed).stderr]
        assert CANARY not in json.dumps(said)
        assert "its api_key_comfy_org was forgotten at its end; submit it again" in said[-1]
        # The service was given it, and does not tell it on: as ComfyUI itself.
        histories = []
        for slot in range(2):
            async with session.get(f"http://127.0.0.1:{stack.ports['comfyui'] + slot}/history") as answer:
                histories.append(await answer.text())
        assert "extra_pnginfo" in "".join(histories) and CANARY not in "".join(histories)


async def test_a_running_workflow_shows_its_previews(stack: Stack) -> None:
    payload = {"workflow": PAINTS, "extra_data": {"preview_method": "auto"}}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{stack.api}/api/jobs", json={"service": "comfyui", "payload": payload}) as answer:
            job_id = (await answer.json())["job_id"]
        pictures: list[str] = []
        async with stream(stack.monitor, f"/api/jobs/{job_id}/progress?preview=1") as reader:
            while len(pictures) < 3:
                _, data = await reader.until(lambda e, _: e.event == "preview")
                pictures.append(data["image"])
            async with session.get(f"{stack.monitor}/api/jobs/{job_id}/preview") as answer:
                assert answer.status == 200 and answer.headers["Content-Type"] == "image/png"
            stack.ok("cancel", job_id)
            await reader.until(lambda e, d: e.event == "job" and d["status"] == "cancelled")
        assert all(p.startswith("data:image/png;base64,") for p in pictures) and len(set(pictures)) == 3
        async with session.get(f"{stack.api}/api/jobs/{job_id}/preview") as answer:
            assert answer.status == 204
    until("nothing is left of it", lambda: holding(stack.redis_url, CANARY) == [])
