"""Real simulation services and real workers, each a process of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import redis
from msgspec import structs

from emp_orch.fleet.model.fleet import Fleet, ServiceName
from emp_orch.fleet.model.observed import ConnectorStatus, WorkerReport
from emp_orch.layout import Layout
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, eventually, free_port, until

EMP = (sys.executable, "-m", "emp_orch")
KEYS = Keys("w:")


async def known_by_its_service(r: Client, job_id: str, port: int) -> None:
    """Until the service at this port has the job's run: its id stands in the job's document before it is sent."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

        async def there() -> bool:
            if not await r.hexists(KEYS.job(job_id), "run"):
                return False
            async with http.get("/queue") as queue, http.get("/history") as history:
                return bool((await queue.json())["queue_running"] or await history.json())

        await until(there)


class Daemon:
    """A process with its log."""

    def __init__(self, folder: Path, name: str, *argv: str, env: dict[str, str] | None = None) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*EMP, "-C", str(folder), *argv], stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def terminate(self, *, within_s: float = 20) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Bench:
    """A Redis, and the daemons that a test starts beside it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.daemons: list[Daemon] = []

    def _start(self, name: str, *argv: str, env: dict[str, str] | None = None) -> Daemon:
        daemon = Daemon(self.folder, name, *argv, env=env)
        self.daemons.append(daemon)
        return daemon

    @property
    def artifacts(self) -> str:
        """Where the fleet in this folder keeps outputs."""
        return Layout(self.folder).artifacts_url

    def simulation(
        self, *, step_ms: int = 5, port: int | None = None, options: tuple[str, ...] = ()
    ) -> tuple[Daemon, int]:
        port = port or free_port()
        daemon = self._start(
            f"simulation-{port}",
            *("simulate", "--port", str(port), "--dir", f"data-{port}", "--step-ms", str(step_ms), "--steps", "1000"),
            *options,
        )
        eventually(lambda: "simulation serves" in daemon.log or daemon.process.poll() is not None)
        assert daemon.process.poll() is None, daemon.log
        return daemon, port

    def worker(
        self, *services: str, gpu: int = 0, options: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> Daemon:
        bindings = [word for s in services for word in ("--service", s)]
        return self._start(
            f"worker-{gpu}-{len(self.daemons)}",
            *("worker", "--machine", "m", "--gpu", str(gpu), *bindings, "--heartbeat", "0.2", "--probe", "0.1"),
            *options,
            env={
                "HUB_REDIS_URL": self.server.url,
                "EMP_REDIS_PREFIX": KEYS.prefix,
                "EMP_ARTIFACTS_URL": self.artifacts,
                **(env or {}),
            },
        )

    def report(self, gpu: int = 0) -> WorkerReport | None:
        with redis.Redis.from_url(self.server.url) as r:
            text = r.hget(KEYS.workers, f"m-worker-{gpu}")
        return None if text is None else msgspec.json.decode(text, type=WorkerReport)

    def reported(self, job_id: str, gpu: int = 0) -> None:
        """Until the worker's report names this job: so its next life learns of it; another is left to its lease."""
        eventually(lambda: (report := self.report(gpu)) is not None and report.current_job_id == job_id)

    def ready(self, gpu: int = 0) -> WorkerReport:
        """The report of an idle worker whose connectors have all answered well."""

        def look() -> WorkerReport | None:
            report = self.report(gpu)
            if report is None or report.status != "idle":
                return None
            fine = all(c.status is ConnectorStatus.IDLE for c in report.connector_statuses.values())
            return report if fine else None

        found = eventually(look)
        assert found is not None
        return found

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()


@contextlib.contextmanager
def bench(folder: Path, server: Server) -> Iterator[Bench]:
    made = Bench(folder, server)
    try:
        yield made
    finally:
        made.close()


def at(fleet: Fleet, port: int, connector: str = "simulation") -> Fleet:
    """`fleet` whose service listens on `port`."""
    service = structs.replace(fleet.services[ServiceName("simulation")], port=port, connector=connector)
    return structs.replace(fleet, services={service.name: service})
