"""A whole fleet behind sentinels, by TLS with a CA of its own; the primary hangs, and every connection to it stands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from emp_orch.connectors.simulation import Request, workflow_of
from support.redis.sentinel import Watched, watched_by_sentinels
from support.stack.stack import Stack, until

JOBS = 150
# A hung primary is left when a deadline (10 s) and as much patience (5 s) are over, in each of some steps.
LEFT_S = 90.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_by_sentinels(tmp_path / "redis", by_tls=True) as made:
        yield made


def payload(n: int) -> dict[str, object]:
    return {"workflow": workflow_of(Request(prompt=f"{n}", steps=1, width=16, height=16))}


async def counts(api: aiohttp.ClientSession) -> Counter[str]:
    """How many jobs are in each status; nothing while the API cannot tell."""
    found: Counter[str] = Counter()
    for status in ("pending", "in_progress", "completed", "failed"):
        async with api.get("/api/jobs", params={"status": status, "limit": "1"}) as said:
            if said.status != 200:
                return Counter()
            found[status] = int((await said.json())["data"]["total"])
    return found


@pytest.mark.timeout(500)
async def test_all_of_it_leaves_a_primary_that_hangs(folder_stack: Stack, watched: Watched) -> None:
    stack = folder_stack
    text = stack.file.read_text()
    stack.file.write_text(text.replace("url: embedded", f"url: {watched.url}", 1) + "\njobs: {lease: 5s}\n")
    await asyncio.to_thread(stack.up)
    parts, programs = ("api", "reconcile", "monitor"), ("agent", "redis-worker-gpu0", "redis-worker-gpu1")
    before = [stack.control(p) for p in parts] + [stack.program(p) for p in programs]
    heard: Counter[str] = Counter()

    async with aiohttp.ClientSession(base_url=stack.api) as api:

        async def listen() -> None:
            """One client of the API's stream, for all of it."""
            async with api.get("/api/events/monitor", timeout=aiohttp.ClientTimeout(total=None)) as stream:
                async for line in stream.content:
                    if line.startswith(b"event: "):
                        heard[line[7:].decode().strip()] += 1

        listening = asyncio.create_task(listen())
        jobs = [{"id": f"j-{n}", "service": "comfyui", "payload": payload(n)} for n in range(JOBS)]
        async with api.post("/api/jobs", json=jobs) as said:
            assert said.status == 201, await said.text()
        while (await counts(api))["completed"] < JOBS // 10:
            await asyncio.sleep(0.05)
        old = watched.primary()
        old.freeze()
        try:
            new = await asyncio.to_thread(watched.failed_over_from, old)
            # All of it goes on with the new one, while the old still hangs.
            async with asyncio.timeout(2 * LEFT_S):
                while (now := await counts(api))["completed"] < JOBS:
                    await asyncio.sleep(0.2)
            assert (now["completed"], now["failed"]) == (JOBS, 0)
            told = heard["job_completed"]
            await asyncio.to_thread(stack.ok, "submit", "simulation", "--wait")
            async with asyncio.timeout(LEFT_S):
                while heard["job_completed"] == told:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(stack.until_in_sync, within_s=LEFT_S)
        finally:
            old.thaw()
        await asyncio.to_thread(until, "the old one is a replica", watched.in_step, within_s=LEFT_S)
        assert watched.primary() is new
        # Nobody went back to what it says now: work and events are those of the new one.
        told = heard["job_completed"]
        await asyncio.to_thread(stack.ok, "submit", "simulation", "--wait")
        async with asyncio.timeout(LEFT_S):
            while heard["job_completed"] == told:
                await asyncio.sleep(0.05)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert [stack.control(p) for p in parts] + [stack.program(p) for p in programs] == before, "nobody was restarted"
    await asyncio.to_thread(stack.until_in_sync)
    for log in sorted(stack.layout.logs.rglob("*.log")):
        text = log.read_text(errors="replace")
        assert "Traceback" not in text, f"{log.name}: {text.split('Traceback', 1)[1][:3000]}"
