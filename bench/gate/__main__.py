"""`python -m bench.gate [--jobs N] [--boxes N] [--sockets N]`: claim → end of a job in Redis' own words, by a login and
through the gate, in turn; then so many boxes with so many idle sockets each. Real Redis, real API, real relay.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.redis.client import client
from emp_orch.store.redis.pipelined import Pipelined
from support.http.gate import MINE, GateLab, gate_lab
from support.http.stack import Stack

ABLE = {"services": ["simulation"]}
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def jobs(lab: GateLab, url: str, count: int) -> list[float]:
    """Milliseconds from claim to end, of each."""
    pool = client(url, most=1)
    line = Pipelined(pool)
    claims = Claims(pool, lab.keys, f"{MINE}-worker-0", lease_s=30, line=line)
    took = []
    try:
        await lab.queue.submit_many([parse_submission({"service": "simulation"}) for _ in range(count)])
        for _ in range(count):
            began = time.perf_counter()
            claim = await claims.claim_or_wait(ABLE)
            assert isinstance(claim, Claimed)
            await claims.completed(claim, Result())
            took.append((time.perf_counter() - began) * 1000)
    finally:
        await claims.leave()
        await claims.aclose()
        await line.aclose()
        await pool.aclose()
    return took


async def sockets(lab: GateLab, boxes: int, each: int) -> None:
    api = lab.stack.daemons["api"].popen.pid
    before = (fds(api), rss_mib(api))
    for i in range(boxes):
        await lab.join(f"renders-b{i}")
    async with AsyncExitStack() as open_:
        http = await open_.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        began = time.perf_counter()
        for at in range(0, boxes, 10):
            made = [
                http.ws_connect(
                    f"{lab.stack.api}{GATE_PATH}", headers={"Authorization": f"Bearer {lab.token(f'renders-b{i}')}"}
                )
                for i in range(at, min(at + 10, boxes))
                for _ in range(each)
            ]
            for ws in await asyncio.gather(*made):
                open_.push_async_callback(ws.close)
        took, used = time.perf_counter() - began, cpu_s(api)
        await asyncio.sleep(10)
        idle = (cpu_s(api) - used) / 10
        print(
            f"{boxes} boxes, {each} sockets each: let in {took:.1f} s; API {fds(api) - before[0]} more files, "
            f"{rss_mib(api) - before[1]:.0f} MiB more ({rss_mib(api):.0f}), idle {idle * 100:.1f} % of a core"
        )


async def main(count: int, boxes: int, each: int) -> None:
    made: list[Stack] = []

    def new(**listen: object) -> Stack:
        made.append(Stack(Path(folder) / "fleet", **listen))
        return made[0]

    with tempfile.TemporaryDirectory() as folder:
        try:
            make: Callable[..., Stack] = new
            async with gate_lab(make, Path(folder)) as lab:
                ways = {"login": lab.stack.settings.redis_url, "gate": await lab.relay(MINE)}
                api = lab.stack.daemons["api"].popen.pid
                for _ in range(3):
                    for name, url in ways.items():
                        used = cpu_s(api)
                        took = await jobs(lab, url, count)
                        per_job = (cpu_s(api) - used) / count * 1e6
                        p99 = statistics.quantiles(took, n=100)[98]
                        print(f"{name:6} median {statistics.median(took):.2f} ms, p99 {p99:.2f}, API {per_job:.0f} µs")
                await sockets(lab, boxes, each)
        finally:
            for stack in made:
                stack.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--boxes", type=int, default=500)
    parser.add_argument("--sockets", type=int, default=4)
    given = parser.parse_args()
    asyncio.run(main(given.jobs, given.boxes, given.sockets))
