"""A fleet whose only machines are a pool on a real Docker Swarm of two engines: it grows for jobs, loses a node in
the middle, ends every job once, and shrinks to nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.docker.engine import load_machine
from support.docker.swarm import SwarmNode, swarm
from support.stack.stack import Stack, free_ports, until

PASSWORD = "let-me-in"
JOBS = 10
LONG = json.dumps({"prompt": "a fox", "steps": 100})
GROWN_S = 120.0
DONE_S = 180.0


class PooledFleet(Stack):
    """A pool of 0..2 on the Swarm of `nodes`."""

    def __init__(self, folder: Path, nodes: tuple[SwarmNode, SwarmNode]) -> None:
        super().__init__(folder, name="pooled")
        self.manager, self.worker = nodes
        # An address of this host that both nodes reach.
        self.here = self.manager.here
        self.redis_port = free_ports(1)
        shutil.copytree(self.manager.certs, self.root / "tls")
        tls = "tls: {ca: tls/ca.pem, cert: tls/cert.pem, key: tls/key.pem}"
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: pooled",
                    f'redis: {{url: "redis://:${{REDIS_PASSWORD}}@{self.here}:{self.redis_port}/0"}}',
                    f"api: {{host: 0.0.0.0, port: {self.ports['api']}, token: {{env: EMP_TOKEN}},",
                    f"  machine_url: 'http://{self.here}:{self.ports['api']}'}}",
                    f"monitor: {{port: {self.ports['monitor']}}}",
                    f"hosts: {{gpus: {{docker: '{self.manager.url}', {tls}}}}}",
                    "services:",
                    "  simulation: {scale: per_machine, builtin: simulation, port: 8299}",
                    "pools:",
                    "  renders:",
                    "    provider: swarm",
                    "    provider_options: {host: gpus}",
                    "    size: 0..2",
                    "    num_gpus: 1",
                    "    services: [simulation]",
                    "    worker: {drain_timeout: 5s}",
                    "    scale: {jobs_per_gpu: 1, up_after: 1s, down_after: 5s}",
                    "    forget_after: 60s",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"EMP_TOKEN": "a-token-of-ours", "REDIS_PASSWORD": PASSWORD, **env})

    def services(self) -> list[str]:
        return self.manager.docker("service", "ls", "--format", "{{.Name}}").split()

    def running_on(self, node: SwarmNode) -> list[str]:
        return node.docker("ps", "-q", "--filter", "label=emp.pool=renders").split()

    def jobs(self) -> dict[str, str]:
        listed: list[dict[str, Any]] = json.loads(self.ok("jobs", "--limit", "1000", "--json"))["jobs"]
        return {str(job["id"]): str(job["status"]) for job in listed}

    def told(self) -> str:
        """For a failed wait: what the fleet and the Swarm say."""
        lines = [self.run("status").stdout, self.run("diff").stdout]
        lines += [self.manager.docker("service", "ps", "--no-trunc", name) for name in self.services()]
        for node in (self.manager, self.worker):
            for box in self.running_on(node):
                lines.append(node.docker("logs", "--tail", "30", box, both=True))
        return "\n".join([*lines, self.log_ends()])


@contextmanager
def redis_at(folder: Path, host: str, port: int) -> Iterator[None]:
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", host, "--requirepass", PASSWORD, "--save", ""]
    server = subprocess.Popen([*argv, "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[PooledFleet]:
    with swarm() as nodes:
        for node in nodes:
            load_machine(node)
        fleet = PooledFleet(tmp_path / "fleet", nodes)
        with redis_at(tmp_path, fleet.here, fleet.redis_port):
            try:
                yield fleet
            finally:
                fleet.run("down")
                for name in fleet.services():
                    fleet.manager.docker("service", "rm", name)


def test_a_pool_grows_loses_a_node_and_shrinks(fleet: PooledFleet) -> None:
    fleet.up()
    assert fleet.services() == []
    ids = [fleet.ok("submit", "simulation", "--payload", LONG, "--retries", "3").strip() for _ in range(JOBS)]
    until(
        "a member at work on each node",
        lambda: (
            fleet.running_on(fleet.manager) and fleet.running_on(fleet.worker) and "completed" in fleet.jobs().values()
        ),
        within_s=GROWN_S,
        shown=fleet.told,
    )
    assert len(fleet.services()) == 2
    fleet.worker.die()
    try:
        until("two on the node that is left", lambda: len(fleet.running_on(fleet.manager)) == 2, shown=fleet.told)
    finally:
        fleet.worker.start()
    until("all jobs ended", lambda: set(fleet.jobs().values()) == {"completed"}, within_s=DONE_S, shown=fleet.told)
    assert sorted(fleet.jobs()) == sorted(ids)
    until("nobody is left", lambda: fleet.services() == [], within_s=GROWN_S, shown=fleet.told)
    assert fleet.manager.docker("secret", "ls", "-q").split() == []
    fleet.until_in_sync()
