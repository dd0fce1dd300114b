"""`emp events`: straight from Redis, one line an event."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys
from support.http.stack import Process, Producer, Stack, environment, eventually


def run(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(stack.layout.root), "events", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment())


async def test_past_filtered_json_and_followed(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack()
    stack.start_redis()
    redis = client(stack.settings.redis_url)
    producer = Producer(redis, Keys())
    assert run(stack).stdout == ""
    await producer.events.append("machine_startup", machine_id="m1", phase="ready")
    await producer.events.append("worker_status", machine_id="m1", worker_id="m1-worker-0", status="idle\nforged")
    for n in range(60):
        await producer.events.append("note", n=n)
    shown = run(stack, "--type", "machine_startup", "--type", "worker_status").stdout.splitlines()
    assert len(shown) == 2
    assert "machine_startup" in shown[0]
    assert "m1" in shown[0]
    assert "phase=ready" in shown[0]
    assert "idle?forged" in shown[1]
    assert len(run(stack, "--limit", "3").stdout.splitlines()) == 3
    (last,) = run(stack, "--json", "-n", "1").stdout.splitlines()
    assert json.loads(last)["data"] == {"type": "note", "n": 59}

    argv = [sys.executable, "-m", "emp_orch", "-C", str(stack.layout.root), "events", "-f", "-n", "0", "--json"]
    follower = Process(argv, stack.layout.log("follower"), stack.layout.root)
    try:

        async def follows() -> bool:
            await producer.events.append("followed")
            return "followed" in follower.text

        await eventually(follows, "the follower prints what comes")
    finally:
        follower.stop()
    await redis.aclose()


def test_redis_out_of_reach_is_exit_3(new_http_stack: Callable[..., Stack]) -> None:
    done = run(new_http_stack())
    assert done.returncode == 3
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
