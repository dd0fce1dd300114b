"""A whole fleet behind sentinels: the primary is killed in the middle of 500 jobs, and nobody is restarted.

With a login at the servers, another at the sentinels, and `redis.replicas: 1`: no job that was answered is lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emp_orch.connectors.simulation import Request, workflow_of
from support.redis.sentinel import Watched, watched_by_sentinels
from support.stack.stack import Stack, until

JOBS = 500
LOGIN, PASSWORD_THERE = "emp:o%2Fn%40l", "s p@ce/"
USER = ("--user", "emp", "on", ">o/n@l", "~*", "&*", "+@all")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_by_sentinels(tmp_path / "redis", options=USER, password=PASSWORD_THERE) as made:
        yield made


def declared(stack: Stack, watched: Watched) -> None:
    text = stack.file.read_text()
    url = watched.url.replace("://", f"://{LOGIN}@", 1) + "?sentinel_password=${THERE}"
    assert "url: embedded" in text
    stack.file.write_text(text.replace("url: embedded", f"url: {url}\n  replicas: 1", 1) + "\njobs: {lease: 5s}\n")


async def accepted(api: aiohttp.ClientSession, job_id: str) -> bool:
    """Send until it is answered; whether that was with its first words."""
    small = workflow_of(Request(prompt=job_id, steps=1, width=16, height=16))
    body = {"id": job_id, "service": "comfyui", "payload": {"workflow": small}}
    for n in range(600):
        try:
            async with api.post("/api/jobs", json=body) as said:
                if said.status in (200, 201):
                    return n == 0
                assert said.status == 503, await said.text()
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"{job_id} was never taken")


async def total(api: aiohttp.ClientSession, status: str) -> int:
    """How many jobs are in `status`; -1 while the API cannot tell."""
    async with api.get("/api/jobs", params={"status": status, "limit": "1"}) as said:
        return int((await said.json())["data"]["total"]) if said.status == 200 else -1


@pytest.mark.timeout(600)
async def test_all_of_it_follows_and_what_was_answered_is_there(
    folder_stack: Stack, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = folder_stack
    monkeypatch.setenv("THERE", "s%20p%40ce%2F")
    declared(stack, watched)
    await asyncio.to_thread(stack.up)
    parts = ("api", "reconcile", "monitor")
    programs = ("agent", "redis-worker-gpu0", "redis-worker-gpu1")
    before = [stack.control(p) for p in parts] + [stack.program(p) for p in programs]
    heard: list[str] = []

    async with aiohttp.ClientSession(base_url=stack.api) as api:

        async def listen() -> None:
            """One client of the API's stream, for all of it: it is not ended by a failover."""
            async with api.get("/api/events/monitor", timeout=aiohttp.ClientTimeout(total=None)) as stream:
                async for line in stream.content:
                    if line.startswith(b"event: "):
                        heard.append(line[7:].decode().strip())

        listening = asyncio.create_task(listen())

        async def send_all() -> list[bool]:
            return [await accepted(api, f"j-{n}") for n in range(JOBS)]

        sending = asyncio.create_task(send_all())
        while await total(api, "completed") < JOBS // 10:
            await asyncio.sleep(0.05)
        old = watched.primary()
        began = time.monotonic()
        old.stop()
        new = await asyncio.to_thread(watched.failed_over_from, old)
        elected_s = time.monotonic() - began
        # Replicas are wanted: what was the primary comes back as one.
        old.start()
        at_once = await sending
        async with asyncio.timeout(240):
            while await total(api, "completed") < JOBS:
                await asyncio.sleep(0.2)
        print(
            f"elected {elected_s:.1f} s after the kill; {Counter(at_once)}; all done after "
            f"{time.monotonic() - began:.1f} s; {Counter(heard)}"
        )
        assert (await total(api, "completed"), await total(api, "failed")) == (JOBS, 0)
        told = heard.count("job_completed")
        stack.ok("submit", "simulation", "--wait")
        async with asyncio.timeout(60):
            while heard.count("job_completed") == told:
                await asyncio.sleep(0.05)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert [stack.control(p) for p in parts] + [stack.program(p) for p in programs] == before, "nobody was restarted"
    await asyncio.to_thread(stack.until_in_sync)
    until("the replica is back", lambda: "alone" not in stack.ok("status"))
    shown: dict[str, Any] = json.loads(stack.ok("status", "--json"))
    assert shown["control_plane"]["redis"]["lost"] is None
    assert new.port != old.port and f"127.0.0.1:{watched.sentinels[0]}" in shown["control_plane"]["redis"]["url"]
    for log in sorted(stack.layout.logs.rglob("*.log")):
        text = log.read_text(errors="replace")
        assert "Traceback" not in text, f"{log.name}: {text.split('Traceback', 1)[1][:3000]}"
        assert not any(secret in text for secret in ("o/n@l", "o%2Fn%40l", PASSWORD_THERE, "s%20p%40ce")), log.name
