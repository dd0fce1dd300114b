"""Workers and services that are started again when they end, and the faults that hit them while they work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from emp_orch import manifest
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import Client
from support.load.jobs import Kind, Watch, through
from support.redis.server import Server, free_port, until
from support.worker.processes import KEYS, Daemon

WORKERS = 8
SERVICES = 4
LEASE_S = 3.0
# A run that takes longer is stopped; only those that are meant to do.
RUN_S = 4.0
STEP_MS = 5
# How often an ended program is looked for, and started again.
RESTART_S = 0.05
TRIES = 50


# The workers as the reconciler knows them: on this host, so that it can ask their services.
_DECLARED = f"""
version: 1
name: load
services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
  comfyui: {{scale: per_machine, builtin: simulation, port: 8188}}
machines: {{m: {{num_gpus: {WORKERS}, services: [simulation, comfyui]}}}}
jobs: {{lease: {LEASE_S:g}s}}
"""


class Program:
    """A process that is started again with the same arguments when it ended, as supervisord does it."""

    def __init__(self, folder: Path, name: str, *argv: str, env: dict[str, str]) -> None:
        self.name = name
        self.starts = 0
        self._begin: Callable[[], Daemon] = lambda: Daemon(folder, name, *argv, env=env)
        self.start()

    def start(self) -> None:
        self._daemon = self._begin()
        self.starts += 1

    @property
    def ended(self) -> bool:
        return self._daemon.process.poll() is not None

    @property
    def pid(self) -> int:
        return self._daemon.process.pid

    @property
    def log(self) -> str:
        """Of all its lives."""
        return self._daemon.log

    def signal(self, sig: signal.Signals) -> None:
        self._daemon.process.send_signal(sig)

    def wait(self) -> int:
        return self._daemon.process.wait(30)

    def kill(self) -> None:
        self._daemon.kill()


class Fleet:
    """Eight workers, of which two each share a service. Workers 0 to 3 stand in zone a, the others in zone b."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.ports = [free_port() for _ in range(SERVICES)]
        self.services = [self._service(port) for port in self.ports]
        self.workers = [self._worker(n) for n in range(WORKERS)]

    @property
    def declared(self) -> Generation:
        path = self.folder / "emp.yaml"
        path.write_text(_DECLARED)
        return Generation(number=1, at_ms=0, fleet=manifest.load(path, {}), digest="")

    @property
    def artifacts(self) -> str:
        return Layout(self.folder).artifacts_url

    @property
    def programs(self) -> list[Program]:
        return [*self.services, *self.workers]

    @property
    def worker_ids(self) -> list[str]:
        return [f"m-worker-{n}" for n in range(WORKERS)]

    def _service(self, port: int) -> Program:
        where = ("--port", str(port), "--dir", f"data-{port}")
        speed = ("--step-ms", str(STEP_MS), "--steps", "10000")
        return Program(self.folder, f"service-{port}", "simulate", *where, *speed, env=self._env())

    def _worker(self, n: int) -> Program:
        url = f"http://127.0.0.1:{self.ports[n % SERVICES]}"
        can = {"zone": "a" if n < WORKERS // 2 else "b", "models": ["small", "large"], "level": n}
        return Program(
            *(self.folder, f"worker-{n}", "worker", "--machine", "m", "--gpu", str(n)),
            *("--service", f"simulation=simulation@{url}", "--service", f"comfyui=comfyui@{url}"),
            *("--capabilities", json.dumps(can), "--lease-ttl", str(LEASE_S), "--job-timeout", str(RUN_S)),
            *("--heartbeat", "1", "--probe", "0.5"),
            env=self._env(),
        )

    def _env(self) -> dict[str, str]:
        return {
            "HUB_REDIS_URL": self.server.url,
            "EMP_REDIS_PREFIX": KEYS.prefix,
            "EMP_ARTIFACTS_URL": self.artifacts,
            "TMPDIR": str(self.temporary),
        }

    async def keep(self) -> None:
        """Start whatever ended again, for ever."""
        while True:
            for program in self.programs:
                if program.ended:
                    program.start()
            await asyncio.sleep(RESTART_S)

    def stop(self) -> dict[str, int]:
        """Ask all to end, workers first; their exit codes."""
        codes: dict[str, int] = {}
        for group in (self.workers, self.services):
            for program in group:
                program.signal(signal.SIGTERM)
            codes |= {p.name: p.wait() for p in group}
        return codes

    def close(self) -> None:
        for program in self.programs:
            program.kill()


@contextlib.contextmanager
def fleet(folder: Path, server: Server) -> Iterator[Fleet]:
    made = Fleet(folder, server)
    try:
        yield made
    finally:
        made.close()


def processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that were told of `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(str(folder) in word for word in words):
                    found.append(" ".join(words))
    return found


class FaultKind(StrEnum):
    """A frozen worker goes on when it has lost its job."""

    WORKER = "kill -9 of a worker"
    SERVICE = "kill -9 of a service"
    REDIS = "kill -9 of Redis"
    FREEZE = "freeze of a worker"
    USURP = "freeze of a worker, kill -9 of its service"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`after`: once so many jobs have ended. So faults keep pace with the work, on a slow machine too."""

    after: int
    kind: FaultKind
    victim: int


def faults_of(rng: random.Random, jobs: int) -> list[Fault]:
    """What goes wrong while `jobs` jobs are worked off, in order; the last tenth is left in peace."""
    kinds = [FaultKind.WORKER] * 24 + [FaultKind.SERVICE] * 8 + [FaultKind.FREEZE] * 2 + [FaultKind.USURP] * 2
    rng.shuffle(kinds)
    kinds.insert(rng.randrange(len(kinds) // 3, 2 * len(kinds) // 3), FaultKind.REDIS)
    times = sorted(rng.sample(range(20, jobs * 9 // 10), len(kinds)))
    return [Fault(after=t, kind=k, victim=rng.randrange(WORKERS)) for t, k in zip(times, kinds, strict=True)]


class Faults:
    """Carries faults out. `stolen`: frozen workers that lost their job meanwhile."""

    def __init__(self, fleet: Fleet, watch: Watch, r: Client, kind_of: Callable[[str], Kind | None]) -> None:
        self._fleet = fleet
        self._watch = watch
        self._r = r
        self._kind_of = kind_of
        self._frozen: set[int] = set()
        self.stolen = 0

    async def all_of(self, faults: list[Fault]) -> None:
        """Each at its time; a worker that stands still meanwhile is not killed, its neighbour is."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                await self._watch.until_ended(fault.after)
                victim = next(v % WORKERS for v in range(fault.victim, WORKERS * 2) if v % WORKERS not in self._frozen)
                print(
                    f"{time.monotonic() - begun:5.1f} s, {len(self._watch.ended):4} ends: {fault.kind} ({victim})",
                    flush=True,
                )
                match fault.kind:
                    case FaultKind.WORKER:
                        self._fleet.workers[victim].signal(signal.SIGKILL)
                    case FaultKind.SERVICE:
                        self._fleet.services[victim % SERVICES].signal(signal.SIGKILL)
                    case FaultKind.FREEZE:
                        tasks.create_task(self._freeze(victim, wanted=None))
                    case FaultKind.USURP:
                        tasks.create_task(self._freeze(victim, wanted=Kind.LONG))
                    case FaultKind.REDIS:
                        await self._redis()

    async def _freeze(self, victim: int, *, wanted: Kind | None) -> None:
        """Until the job in its hands was given to another, or ended by what its service says.

        `wanted`: with a job of that kind in its hands, and without its service, so that another runs the job when the
        victim goes on.
        """
        worker, who = self._fleet.workers[victim], self._fleet.worker_ids[victim]
        self._frozen.add(victim)
        try:
            for _ in range(TRIES):  # it may stand still between two jobs, or be killed before
                worker.signal(signal.SIGSTOP)
                held = await through(lambda: self._held_by(who))
                if held and (wanted is None or all(self._kind_of(job_id) is wanted for job_id in held)):
                    break
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(0.02)
            if wanted is not None:
                self._fleet.services[victim % SERVICES].signal(signal.SIGKILL)

            async def lost() -> bool:
                return await through(lambda: self._held_by(who)) != held and await through(lambda: self._taken(held))

            with contextlib.suppress(TimeoutError):  # its service may be at the run all the time
                await until(lost, within_s=4 * LEASE_S)
                self.stolen += bool(held)
        finally:
            worker.signal(signal.SIGCONT)
            self._frozen.discard(victim)

    async def _taken(self, job_ids: Iterable[str]) -> bool:
        """Whether somebody holds each of them, or it ended."""
        return JobStatus.PENDING not in [await self._r.hget(KEYS.job(i), "status") for i in job_ids]

    async def _held_by(self, worker_id: str) -> dict[str, str]:
        """Jobs and their tokens."""
        held = {}
        for job_id in cast(list[str], await self._r.zrange(KEYS.leases, 0, -1)):
            who, token = await self._r.hmget(KEYS.job(job_id), "worker_id", "token")
            if who == worker_id:
                held[job_id] = str(token)
        return held

    async def _redis(self) -> None:
        """Gone for longer than a lease, and until a worker has an outcome that it cannot deliver."""

        async def kept() -> bool:
            return any("is kept until Redis is back" in w.log for w in self._fleet.workers)

        self._fleet.server.stop()
        try:
            await asyncio.sleep(1.2 * LEASE_S)
            await until(kept)
        finally:
            await asyncio.to_thread(self._fleet.server.start)
