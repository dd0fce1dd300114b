"""Two fleets on one host, in two folders, do not touch each other; nor does a fleet on a Redis of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from support.redis.server import SERVERS, Server
from support.stack.stack import MACHINE, Stack, until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    stacks = (Stack(tmp_path / "a", name="alpha"), Stack(tmp_path / "b", name="beta"))
    try:
        yield stacks
    finally:
        for stack in stacks:
            if stack.layout.settings.exists():
                stack.run("down")
        left = [line for stack in stacks for line in stack.leftovers()]
        assert not left, "\n".join(left)


def test_two_stacks_side_by_side(pair: tuple[Stack, Stack]) -> None:
    one, two = pair
    one.up(NUM_GPUS="1")
    two.up(NUM_GPUS="1")
    names = ("supervisord", "agent", "simulation", "comfyui-gpu0", "redis-worker-gpu0")
    kept = {n: two.program(n) for n in names}
    job = json.loads(one.ok("submit", "simulation", "--wait", "--json"))
    assert job["status"] == "completed"
    assert json.loads(two.ok("jobs", "--json"))["jobs"] == []
    one.ok("down")
    assert one.leftovers() == []
    assert {n: two.program(n) for n in names} == kept
    assert two.diff()[0] == 0
    os.kill(two.program("redis-worker-gpu0").pid, 9)
    until("a new worker", lambda: two.program("redis-worker-gpu0") != kept["redis-worker-gpu0"])
    two.until_in_sync()
    assert one.leftovers() == []
    assert MACHINE in two.ok("status")


@pytest.mark.parametrize("kind", SERVERS)
def test_a_redis_of_its_own(tmp_path: Path, kind: str) -> None:
    """`redis.url` pointing at a real Redis: that one is used, none is started, and it is left running."""
    server = Server(kind, tmp_path)
    server.start()
    stack = Stack(tmp_path / "fleet")
    text = stack.file.read_text()
    stack.file.write_text(text.replace("url: embedded", f"url: {server.url}\n  prefix: 'mine:'", 1))
    try:
        stack.up(NUM_GPUS="1")
        assert stack.diff()[0] == 0
        assert not (stack.layout.control / "run" / "redis").exists()
        assert json.loads(stack.ok("submit", "simulation", "--wait", "--json"))["status"] == "completed"
        with redis.Redis.from_url(server.url, decode_responses=True) as r:
            keys = list(r.scan_iter(count=1000))
            assert keys
            assert all(k.startswith("mine:") for k in keys)
            stack.ok("down")
            assert r.ping()
    finally:
        if stack.layout.settings.exists():
            stack.run("down")
        server.stop()
    assert stack.leftovers() == []
