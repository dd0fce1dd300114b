"""A fleet whose only machines are a pool on a real Docker Swarm of two engines: 200 jobs in, it grows to four members,
loses a node in the middle, ends every job once, and shrinks to nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from emp_orch.fleet.model.ids import machine_of
from support.docker.engine import load_machine
from support.docker.swarm import SwarmNode, swarm
from support.stack.stack import Stack, free_ports, until

PASSWORD = "let-me-in"
JOBS = 200
MOST = 4
# Of 0.05 s each. So many jobs must have ended before the node is killed.
STEPS = 10
EARLY = 30
ENDS = ("job_completed", "job_failed", "job_cancelled", "job_timeout")
GROWN_S = 120.0
DONE_S = 180.0


class PooledFleet(Stack):
    """A pool of 0..4 on the Swarm of `nodes`."""

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
                    f"    size: 0..{MOST}",
                    "    num_gpus: 1",
                    "    services: [simulation]",
                    "    worker: {drain_timeout: 5s}",
                    "    scale: {jobs_per_gpu: 1, up_after: 0s, down_after: 3s}",
                    "    forget_after: 60s",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"EMP_TOKEN": "a-token-of-ours", "REDIS_PASSWORD": PASSWORD, **env})

    def services(self) -> list[str]:
        return self.manager.docker("service", "ls", "--format", "{{.Name}}").split()

    def running_on(self, node: SwarmNode) -> set[str]:
        """The members whose boxes run there."""
        return set(self._containers(node))

    def boxes_on(self, node: SwarmNode) -> list[str]:
        """All boxes that the engine still has, also those that ended."""
        return self._containers(node, "--all")

    def _containers(self, node: SwarmNode, *options: str) -> list[str]:
        shown = ("--filter", "label=emp.pool=renders", "--format", '{{.Label "emp.member"}}')
        return node.docker("ps", *options, *shown).split()

    def submit(self) -> list[str]:
        """All jobs by one file, in its order."""
        job = {"service": "simulation", "payload": {"prompt": "a fox", "steps": STEPS}, "max_retries": 3}
        file = self.root / "jobs.jsonl"
        file.write_text("".join(f"{json.dumps({**job, 'id': f'fox-{n:03}'})}\n" for n in range(JOBS)))
        return self.ok("submit", "-f", file.name).split()

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ok("jobs", "--limit", "1000", "--json"))["jobs"]
        return found

    def served(self) -> set[str]:
        """The members that a job was given to."""
        return {str(machine_of(str(job["worker_id"]))) for job in self.jobs() if job["worker_id"]}

    def statuses(self) -> Counter[str]:
        return Counter(str(job["status"]) for job in self.jobs())

    def redis(self) -> redis.Redis:
        return redis.Redis(host=self.here, port=self.redis_port, password=PASSWORD, decode_responses=True)

    def in_redis(self) -> list[str]:
        """What Redis has of members: keys, and fields of those that are the fleet's."""
        with self.redis() as r:
            fields = [f for key in ("fleet:pooled:members", "machines", "workers") for f in cast(Any, r.hkeys(key))]
            return [*fields, *r.scan_iter("*renders-*")]

    def jobs_of(self, *types: str) -> Counter[str]:
        """How often each job had an event of `types`, of all that there were."""
        with self.redis() as r:
            events: Any = r.xrange("events")
        return Counter(json.loads(e["data"])["job_id"] for _, e in events if e["type"] in types)

    def had(self, job_id: str) -> list[str]:
        """The members that the job was given to, in turn."""
        shown = json.loads(self.ok("jobs", "show", job_id, "--json"))
        given = (h["worker_id"] for h in shown["history"] if h["event"] == "job_assigned")
        return [str(machine_of(str(worker))) for worker in given]

    def journal(self) -> Counter[str]:
        return Counter(e["type"] for e in json.loads(self.ok("journal", "-n", "1000", "--json")))

    def told(self) -> str:
        """For a failed wait: what the fleet and the Swarm say."""
        lines = [self.run("status").stdout, self.run("diff").stdout]
        lines += [self.manager.docker("service", "ps", "--no-trunc", name) for name in self.services()]
        for node in (self.manager, self.worker):
            for box in node.docker("ps", "-q", "--filter", "label=emp.pool=renders").split():
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
    ids = fleet.submit()
    assert len(ids) == JOBS
    until(
        "four members at work",
        lambda: len(fleet.served()) == MOST and fleet.statuses()["completed"] >= EARLY,
        within_s=GROWN_S,
        shown=fleet.told,
    )
    members = fleet.running_on(fleet.manager) | fleet.running_on(fleet.worker)
    assert len(fleet.services()) == len(members) == MOST
    lost = fleet.running_on(fleet.worker)
    assert lost
    fleet.worker.die()
    assert fleet.statuses()["completed"] < JOBS, "all had ended before the node was killed"
    try:
        until(
            "the same members on the node that is left",
            lambda: fleet.running_on(fleet.manager) == members,
            within_s=GROWN_S,
            shown=fleet.told,
        )
    finally:
        fleet.worker.start()
    until("all jobs ended", lambda: fleet.statuses() == {"completed": JOBS}, within_s=DONE_S, shown=fleet.told)
    until("nobody is left", lambda: fleet.services() == [], within_s=GROWN_S, shown=fleet.told)

    assert sorted(str(job["id"]) for job in fleet.jobs()) == sorted(ids)
    assert fleet.jobs_of(*ENDS) == dict.fromkeys(ids, 1)
    # Only what the dead node held was given to a second worker: nobody was removed at work.
    again = fleet.jobs_of("job_requeued")
    assert all(set(fleet.had(job)[:-1]) <= lost for job in again), {job: fleet.had(job) for job in again}
    told = fleet.journal()
    assert told["member_asked"] == told["member_removed"] == MOST, told
    assert told["preempted"] == told["member_forgotten"] == 0, told

    assert fleet.manager.docker("secret", "ls", "-q").split() == []
    nodes = (fleet.manager, fleet.worker)
    until("no box on the engines", lambda: not any(fleet.boxes_on(node) for node in nodes), shown=fleet.told)
    # What a box said last may have come after it was removed: that is forgotten once it is old.
    until("nothing of them in Redis", lambda: not fleet.in_redis(), shown=fleet.told)
    fleet.until_in_sync()
    fleet.ok("down")
    assert fleet.leftovers() == []
