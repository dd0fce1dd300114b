"""A fleet on a Redis whose user has only the rights that docs/redis.md lists: by TLS with an own CA, and by a socket.

Its password is full of what is special in a URL, in a supervisord configuration, and in YAML.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from emp_orch.store.redis.client import API_CONNECTIONS, CONNECTIONS, RECONCILER_CONNECTIONS
from support.redis.server import Server, running_server
from support.redis.tls import tls
from support.stack.stack import MACHINE, Stack
from support.tree import ROOT

WORKER = f"{MACHINE}-worker-0"
DOC = ROOT / "docs" / "redis.md"
PASSWORD = "o/n@l:y#t?h%i&s+%20"


def rules(prefix: str) -> list[str]:
    """The words after `ACL SETUSER emp` of the document."""
    found = re.search(r"^ACL SETUSER emp (.+?)\n```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").replace("PREFIX", prefix).replace("PASSWORD", PASSWORD).split()


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server, and the URL by which the fleet reaches it: Redis over TLS, Valkey, built without, by its socket."""
    login = f"emp:{quote(PASSWORD, safe='')}@"
    if request.param == "redis":
        ca, port, options = tls(tmp_path / "tls")
        url = f"rediss://{login}127.0.0.1:{port}/0?ssl_ca_certs={ca}"
    else:
        options = ["--unixsocket", str(tmp_path / "r.sock")]
        url = f"unix://{login}{tmp_path}/r.sock?db=3"
    with running_server(request.param, tmp_path / "data", *options) as made:
        yield made, url


def test_a_fleet_needs_no_more_than_is_documented(server: tuple[Server, str], tmp_path: Path) -> None:
    admin, url = server
    stack = Stack(tmp_path / "fleet")
    with redis.Redis.from_url(admin.url, decode_responses=True) as r:
        r.execute_command("ACL", "SETUSER", "emp", *rules("mine:"))
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
        logs = "".join(path.read_text() for path in stack.layout.logs.rglob("*") if path.is_file())
        assert PASSWORD not in logs and quote(PASSWORD, safe="") not in logs
        denied = {(entry["reason"], entry["object"]) for entry in r.acl_log()}
    # What is gone without: newer servers have the one, the others would give each machine a user of its own.
    may_lack = ("client|setinfo", "acl|users", "acl|setuser", "acl|deluser")
    assert not denied - {("command", command) for command in may_lack}
