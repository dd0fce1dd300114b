"""A batch that Redis refuses in the middle: what was queued is told, and nothing of it is queued twice."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from emp_orch import settings
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client, drop_idle
from emp_orch.store.redis.keys import Keys
from support.http.stack import Stack
from support.redis.server import Server, running_server
from support.worker.cli import emp, write_settings
from support.worker.processes import KEYS

# Two batches of the queue's, of which only the first has room.
COUNT, ROOM, PAYLOAD = 400, 6_500_000, 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await drop_idle(made)  # it may have been restarted
    await made.config_set("maxmemory", 0)
    await made.aclose()


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> Path:
    write_settings(tmp_path, server.url)
    layout = Layout(tmp_path)
    settings.save(layout, msgspec.structs.replace(settings.load(layout), fleet="basic"))
    return tmp_path


async def run(folder: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(emp, folder, *argv, stdin=stdin)


async def leave_room(r: Client) -> None:
    await r.config_set("maxmemory", (await r.info("memory"))["used_memory"] + ROOM)


def jobs(count: int = COUNT, size: int = PAYLOAD, **more: Any) -> list[dict[str, Any]]:
    return [{"service": "simulation", "payload": {"n": n, "text": "x" * size}, **more} for n in range(count)]


def lines(wanted: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(one)}\n" for one in wanted)


def body(wanted: list[dict[str, Any]]) -> io.BytesIO:
    """As a file: aiohttp warns of large bodies given as bytes."""
    return io.BytesIO(json.dumps(wanted).encode())


async def queued(r: Client, keys: Keys = KEYS) -> list[str]:
    return [str(key) for key in await r.hkeys(keys.jobs)]


async def test_a_file_that_is_refused_in_the_middle_goes_on_where_it_stopped(r: Client, folder: Path) -> None:
    (folder / "jobs.jsonl").write_text("\n" + lines(jobs()))
    await leave_room(r)
    done = await run(folder, "submit", "-f", "jobs.jsonl")
    printed = done.stdout.split()
    assert done.returncode == 3 and len(printed) == 250 and set(printed) == set(await queued(r))
    assert "250 of 400 jobs queued; go on with --from 251" in done.stderr and "memory" in done.stderr
    await r.config_set("maxmemory", 0)
    done = await run(folder, "submit", "-f", "jobs.jsonl", "--from", "251")
    assert done.returncode == 0 and "150 jobs queued" in done.stderr
    found = [(await Queue(r, KEYS).get(i)).payload["n"] for i in [*printed, *done.stdout.split()]]
    assert found == list(range(COUNT)), "each once, none left out"


async def test_once_a_repeat_of_the_file_is_the_same_jobs(r: Client, folder: Path) -> None:
    twice = [{"service": "video"}, {"service": "video"}, {"service": "video", "id": "mine"}]
    (folder / "jobs.json").write_text(json.dumps([*jobs(), *twice]))
    await leave_room(r)
    done = await run(folder, "submit", "-f", "jobs.json", "--once")
    assert done.returncode == 3 and len(done.stdout.split()) == 250
    assert "250 of 403 jobs queued; submit it again: with --once what is queued stays as it is" in done.stderr
    await r.config_set("maxmemory", 0)
    done = await run(folder, "submit", "-f", "jobs.json", "--once")
    assert done.returncode == 0 and "153 jobs queued; 250 were there already" in done.stderr
    again = await run(folder, "submit", "-f", "-", "--once", "--from", "401", stdin=lines([*jobs(), *twice]))
    assert again.stdout.split() == done.stdout.split()[400:], "as a list, or a line each, in any part"
    assert len(set(done.stdout.split())) == 403 == len(await queued(r)) and "mine" in await queued(r)


async def test_wait_tells_what_is_queued(r: Client, folder: Path) -> None:
    (folder / "jobs.jsonl").write_text(lines(jobs()))
    await leave_room(r)
    done = await run(folder, "submit", "-f", "jobs.jsonl", "--wait", "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["job_id"] for one in told} == set(await queued(r)) and {one["status"] for one in told} == {"pending"}
    assert "250 of 400 jobs queued; go on with --from 251" in done.stderr


async def test_a_pipe_whose_redis_goes_away(r: Client, folder: Path, server: Server) -> None:
    server.stop()
    try:
        done = await run(folder, "submit", "-f", "-", stdin=lines(jobs(3, 1)))
        assert done.returncode == 3 and "--from" not in done.stderr, "nothing was sent"
    finally:
        server.start()


async def test_what_goes_with_a_file_only(folder: Path) -> None:
    for argv, words in (
        (("simulation", "--once"), "--once goes with -f"),
        (("simulation", "--from", "2"), "--from goes with -f"),
        (("-f", "jobs.jsonl", "--from", "4"), "jobs.jsonl has 3 jobs"),
        (("-f", "jobs.jsonl", "--from", "0"), "0 is not in the range"),
    ):
        (folder / "jobs.jsonl").write_text(lines(jobs(3, 1)))
        done = await run(folder, "submit", *argv)
        assert done.returncode == 2 and words in done.stderr, done.stderr


async def test_the_api_tells_which_of_a_list_are_queued(http_stack: Stack) -> None:
    r, keys = http_stack.client(), Keys(http_stack.settings.prefix)
    await r.flushall()
    try:
        async with aiohttp.ClientSession(base_url=http_stack.api, headers={"Content-Type": "application/json"}) as api:
            await leave_room(r)
            async with api.post("/api/jobs", data=body(jobs())) as said:
                found = await said.json()
            assert (said.status, found["success"]) == (207, False), found
            assert len(found["job_ids"]) == len(found["data"]) == 250
            assert found["error"].startswith("250 of 400 jobs were queued, those after them not: ")
            assert set(found["job_ids"]) == set(await queued(r, keys))
            # Where none is queued it is an error like any other.
            async with api.post("/api/jobs", data=body(jobs(251))) as said:
                assert said.status == 503
            await r.config_set("maxmemory", 0)
            async with api.post("/api/jobs", data=body(jobs()[250:])) as said:
                assert said.status == 201
            assert (await Queue(r, keys).counts())[JobStatus.PENDING] == 400
    finally:
        await r.config_set("maxmemory", 0)
        await r.flushall()
        await r.aclose()
