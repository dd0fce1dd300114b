"""The same trivial workflow, run by a client of ComfyUI and through emp; each talk ends with the picture's bytes."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from bench.reconcile.children import Failed, environment

DIRECT = "a client of ComfyUI"
STREAM = "emp: API, SSE, artifact"
WAIT = "emp: API with wait, artifact"
COMMAND = "emp submit --wait"

SERVICE = "comfyui"
PNG = b"\x89PNG"
TALK_S = 60

Talk = Callable[[], Awaitable[None]]


class Addresses(Struct, frozen=True, kw_only=True):
    """Where one fleet's API and its only ComfyUI are, and the fleet's folder."""

    api: str
    comfyui: str
    folder: Path


_colours = itertools.count(1)


def workflow() -> dict[str, Any]:
    """One picture of 64 × 64 and of a colour that none had before, so that nothing is taken from a cache."""
    colour = (next(_colours) * 9_973) % 0x1000000
    blank = {"width": 64, "height": 64, "batch_size": 1, "color": colour}
    return {
        "1": {"class_type": "EmptyImage", "inputs": blank},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


def _picture(body: bytes, whose: str) -> None:
    if not body.startswith(PNG):
        raise Failed(f"{whose}: what came is no picture")


async def direct(session: aiohttp.ClientSession, at: Addresses, socket: aiohttp.ClientWebSocketResponse) -> None:
    """As ComfyUI's own page does it: one socket for all, the run's end by its message, then its record and file."""
    body = {"prompt": workflow(), "client_id": "bench"}
    async with session.post(f"{at.comfyui}/prompt", json=body) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            told = json.loads(message.data)
            data = told.get("data", {})
            if told["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id:
                break
    async with session.get(f"{at.comfyui}/history/{prompt_id}") as answer:
        made = (await answer.json())[prompt_id]["outputs"]["2"]["images"][0]
    async with session.get(f"{at.comfyui}/view", params=made) as answer:
        _picture(await answer.read(), DIRECT)


async def _submitted(session: aiohttp.ClientSession, at: Addresses, query: str = "") -> dict[str, Any]:
    body = {"service": SERVICE, "payload": {"workflow": workflow()}}
    async with session.post(f"{at.api}/api/jobs{query}", json=body) as answer:
        found: dict[str, Any] = await answer.json()
        if answer.status != 201:
            raise Failed(f"the job was not accepted: {found.get('error')}")
        return found


async def _fetched(session: aiohttp.ClientSession, at: Addresses, job: dict[str, Any], whose: str) -> None:
    if job["status"] != "completed":
        raise Failed(f"{whose}: the job is {job['status']}: {job['error']}")
    output = job["result"]["outputs"][0]
    async with session.get(f"{at.api}/api/jobs/{job['job_id']}/artifacts/{output['name']}") as answer:
        _picture(await answer.read(), whose)


async def stream(session: aiohttp.ClientSession, at: Addresses) -> None:
    """Submit, follow the job's events to its end, fetch what it made."""
    job_id = (await _submitted(session, at))["job_id"]
    job: dict[str, Any] = {}
    async with session.get(f"{at.api}/api/jobs/{job_id}/progress") as answer:
        event = ""
        async for line in answer.content:
            if line.startswith(b"event: "):
                event = line[7:].strip().decode()
            elif line.startswith(b"data: ") and event == "job":
                job = json.loads(line[6:])
    await _fetched(session, at, job, STREAM)


async def wait(session: aiohttp.ClientSession, at: Addresses) -> None:
    job = (await _submitted(session, at, f"?wait={TALK_S}"))["data"]["job"]
    await _fetched(session, at, job, WAIT)


async def command(at: Addresses) -> None:
    """The whole process, from its start until it has ended."""
    payload = json.dumps({"workflow": workflow()})
    argv = (sys.executable, "-m", "emp_orch", "-C", str(at.folder), "submit", SERVICE, "--payload", payload, "--wait")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, env=environment(), stdout=pipe, stderr=pipe)
    out, words = await process.communicate()
    if process.returncode != 0 or b"completed" not in out:
        raise Failed(f"{COMMAND} ended with {process.returncode}: {words.decode()[-500:]}")
