"""A fleet on a Redis whose user has only the rights that docs/redis.md lists."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from queue_support import SERVERS, Server
from stack import MACHINE, Stack

from emp_orch.store.connect import API_CONNECTIONS, CONNECTIONS, RECONCILER_CONNECTIONS

WORKER = f"{MACHINE}-worker-0"
DOC = Path(__file__).parents[2] / "docs" / "redis.md"
PASSWORD = "only-this"


def rules(prefix: str) -> list[str]:
    """The words after `ACL SETUSER emp` of the document."""
    found = re.search(r"^ACL SETUSER emp (.+?)\n```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").replace("PREFIX", prefix).replace("PASSWORD", PASSWORD).split()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made = Server(request.param, tmp_path)
    made.start()
    yield made
    made.stop()


def test_a_fleet_needs_no_more_than_is_documented(server: Server, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "fleet")
    with redis.Redis.from_url(server.url, decode_responses=True) as r:
        r.execute_command("ACL", "SETUSER", "emp", *rules("mine:"))
        url = server.url.replace("//", f"//emp:{PASSWORD}@")
        text = stack.file.read_text()
        stack.file.write_text(text.replace("url: embedded", f"url: {url}\n  prefix: 'mine:'", 1))
        try:
            stack.up(NUM_GPUS="1")
            job = json.loads(stack.ok("submit", "simulation", "--wait", "--json"))
            assert job["status"] == "completed"
            held = Counter(one["name"] for one in r.client_list() if one["name"])
            assert held.keys() == {"emp:api:test", "emp:reconcile:test", f"emp:agent:{MACHINE}", f"emp:worker:{WORKER}"}
            assert held[f"emp:agent:{MACHINE}"] == held[f"emp:worker:{WORKER}"] == CONNECTIONS
            assert held["emp:api:test"] <= API_CONNECTIONS + 1
            assert held["emp:reconcile:test"] <= RECONCILER_CONNECTIONS
            assert stack.run("doctor").returncode == 0
            for argv in (("status",), ("jobs",), ("jobs", "lanes"), ("journal",), ("pause", "--reason", "x")):
                stack.ok(*argv)
            stack.ok("resume")
            stack.ok("jobs", "purge", "--older-than", "1s", "-y")
            assert stack.diff()[0] == 0
        finally:
            stack.run("down")
        denied = {(entry["reason"], entry["object"]) for entry in r.acl_log()}
    # Newer servers have it, and redis-py goes without.
    assert not denied - {("command", "client|setinfo")}
