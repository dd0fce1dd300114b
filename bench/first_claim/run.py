"""Gives an empty pool on a Docker Swarm a job, and by turns starts the same box by hand for a job that waits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import redis
from msgspec import Struct

from bench.queue.server import free_port
from bench.reconcile.children import COMMAND_S, Failed
from emp_orch import settings
from emp_orch.layout import Layout
from emp_orch.runtimes.compose.connection import Connection
from emp_orch.runtimes.providers.swarm.service import MEMBER
from emp_orch.settings import EngineAddress
from emp_orch.store.fleet.events import decode

EMP = "emp, pool of none"
BY_HAND = "docker service create"

POOL = "renders"
TOKEN = "of-the-bench"  # of an API that lives as long as the bench
LOOK_S = 0.005
ANSWER_S = 30.0

_YAML = """\
version: 1
name: bench-pool
redis: {{port: {redis}}}
api: {{host: 0.0.0.0, port: {api}, token: {{env: EMP_TOKEN}}, machine_url: "http://{address}:{api}"}}
monitor: {{port: {monitor}}}
{hosts}services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
machines: {{}}
pools:
  {pool}:
    provider: swarm
    provider_options: {{host: {host}, image: "{image}"}}
    size: 0..1
    services: [simulation]
    worker: {{drain_timeout: 1s}}
    scale: {{up_after: 0s, down_after: 1s}}
"""


class Plan(Struct, frozen=True, kw_only=True):
    """`address`: of this host, as the boxes reach it."""

    address: str
    image: str
    rounds: int = 5


class Took(Struct, frozen=True, kw_only=True):
    """Seconds until the job was claimed: from `emp submit` queueing it, by hand from the first word to the engine.
    `command_s`: from before the process `emp submit` begins; by hand the same as `claim_s`. `asked_s`: from when the
    engine had made the service until the claim.
    """

    what: str
    claim_s: float
    command_s: float
    asked_s: float


class Pool:
    """A fleet in a folder of its own, and the Swarm that DOCKER_HOST manages."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._engine = Connection(_address(), answer_s=ANSWER_S)
        self._template: dict[str, Any] = {}
        self._turn = 0
        hosts, host = _hosts(folder)
        ports = {name: free_port() for name in ("redis", "api", "monitor")}
        text = _YAML.format(address=plan.address, image=plan.image, hosts=hosts, host=host, pool=POOL, **ports)
        (folder / "emp.yaml").write_text(text)

    def emp(self, *words: str) -> str:
        argv = [sys.executable, "-m", "emp_orch", "-C", str(self._folder), *words]
        environ = {**os.environ, "EMP_TOKEN": TOKEN}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise Failed(f"emp {' '.join(words)}: exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout

    # -- one turn of each

    def by_emp(self) -> Took:
        self._until("an empty pool", lambda: not self._services() and not self._members())
        began = time.time()
        job, queued = self._submit()
        claimed = self._claimed(job)
        (service,) = self._services()
        self._template = service["Spec"]["TaskTemplate"]
        self._until("an end", lambda: self._event("job_completed", job))
        made = _seconds(service["CreatedAt"])
        return Took(what=EMP, claim_s=claimed - queued, command_s=claimed - began, asked_s=claimed - made)

    def by_hand(self) -> Took:
        """The reconciler looks on: it is paused, so that it starts and ends nothing."""
        self._until("an empty pool", lambda: not self._services() and not self._members())
        self.emp("pause", "--reason", "the engine alone is measured")
        try:
            return self._by_hand()
        finally:
            self.emp("resume")

    def _by_hand(self) -> Took:
        self._turn += 1
        name, token = f"by-hand-{self._turn}", json.loads(self.emp("pool", "join", POOL, "--json"))["token"]
        job, _ = self._submit()
        with self._engine.asking() as client:
            api: Any = client
            began = time.time()
            secret = api.create_secret(name, token.encode())
            service = api.create_service(self._same(secret["ID"], name), name=name)
            try:
                claimed = self._claimed(job)
                self._until("an end", lambda: self._event("job_completed", job))
                made = _seconds(api.inspect_service(service["ID"])["CreatedAt"])
            finally:
                api.remove_service(service["ID"])
                api.remove_secret(secret["ID"])
        # Its box leaves in good order, and has none at the engine: once the fleet goes on, it is forgotten.
        return Took(what=BY_HAND, claim_s=claimed - began, command_s=claimed - began, asked_s=claimed - made)

    def _same(self, secret: str, name: str) -> Any:
        """The container of emp's last turn, with a token and a name of its own, and nothing that says whose it is."""
        made: dict[str, Any] = json.loads(json.dumps(self._template))
        container = made["ContainerSpec"]
        environ = (entry for entry in container["Env"] if not entry.startswith("EMP_JOIN_AS="))
        container["Env"] = [*environ, f"EMP_JOIN_AS={name}"]
        container["Labels"] = {}
        for one in container["Secrets"]:
            one |= {"SecretID": secret, "SecretName": name}
        return made

    # -- what is seen

    def _submit(self) -> tuple[str, float]:
        """A job's id, and when it was queued."""
        job = self.emp("submit", "simulation", "--payload", '{"steps": 1}').strip()
        return job, self._until("the job", lambda: self._event("job_submitted", job))

    def _claimed(self, job: str) -> float:
        claimed: float = self._until("a claim", lambda: self._event("job_assigned", job))
        return claimed

    def _event(self, type_: str, job: str) -> float:
        """When it was told, by Redis, whose clock is this host's; 0 before."""
        for entry_id, fields in cast(Any, self._redis().xrevrange("events", count=200)):
            event = decode(entry_id, fields)
            if event.type == type_ and event.data.get("job_id") == job:
                return event.at_ms / 1000
        return 0.0

    def _members(self) -> list[str]:
        return list(cast(Any, self._redis().hkeys("fleet:bench-pool:members")))

    def _services(self) -> list[dict[str, Any]]:
        with self._engine.asking() as client:
            api: Any = client
            found = api.services(filters={"label": f"{MEMBER}"})
        return [s for s in found if s["Spec"]["Labels"].get("emp.fleet") == "bench-pool"]

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(settings.load(Layout(self._folder)).redis_url, decode_responses=True)

    def _until(self, what: str, look: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + COMMAND_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise Failed(f"not within {COMMAND_S} s: {what}")
            time.sleep(LOOK_S)
        return found


def _seconds(engines: str) -> float:
    """Of a time as an engine says it, with nanoseconds."""
    return datetime.fromisoformat(f"{engines[:26].rstrip('Z')}+00:00").timestamp()


def _address() -> EngineAddress:
    """Of the engine that DOCKER_HOST names."""
    url, certs = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), os.environ.get("DOCKER_CERT_PATH", "")
    pem = {kind: f"{certs}/{kind}.pem" for kind in ("ca", "cert", "key")} if certs else {}
    return EngineAddress(name="manager", url=url, here=False, **pem)


def _hosts(folder: Path) -> tuple[str, str]:
    """The lines of emp.yaml about the manager, and its name there."""
    url, certs = os.environ.get("DOCKER_HOST", ""), os.environ.get("DOCKER_CERT_PATH", "")
    if not url:
        return "", "local"
    if not certs:
        return f'hosts: {{gpus: {{docker: "{url}"}}}}\n', "gpus"
    shutil.copytree(certs, folder / "tls")
    tls = "tls: {ca: tls/ca.pem, cert: tls/cert.pem, key: tls/key.pem}"
    return f'hosts: {{gpus: {{docker: "{url}", {tls}}}}}\n', "gpus"


def run(plan: Plan, say: Callable[[str], None]) -> list[Took]:
    """All turns, in rounds. Raises Failed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as folder:
        pool = Pool(Path(folder), plan)
        try:
            pool.emp("apply", "-y")
            pool.by_emp()  # not counted: the first start of everything
            for number in range(plan.rounds):
                for turn in (pool.by_hand, pool.by_emp):
                    took = turn()
                    say(f"{number + 1}: {took.what}: {took.claim_s:.2f} s, {took.asked_s:.2f} s from the service on")
                    found.append(took)
        finally:
            pool.emp("down")
    return found
