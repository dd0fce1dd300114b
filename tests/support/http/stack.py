"""A real Redis, the real daemons as processes, and a producer of real reports, for tests of the HTTP rooms."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from emp_orch.fleet.desired.machines import config_hash, desired_machines
from emp_orch.fleet.drift.table import Drift, Kind
from emp_orch.fleet.model.fleet import (
    BreakerSpec,
    BudgetSpec,
    Endpoint,
    Fleet,
    GpuKind,
    Gpus,
    JobsSpec,
    Machine,
    MachineId,
    PoolName,
    ProgramName,
    ReconcileSpec,
    RedisSpec,
    RolloutSpec,
    Scale,
    Service,
    ServiceName,
    Stop,
    WorkerId,
    WorkerSpec,
)
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    GpuReport,
    MachineReport,
    MachineStatus,
    ProgramReport,
    ProgramState,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.policy.item import Item
from emp_orch.layout import Layout
from emp_orch.roles import Role
from emp_orch.seals import KEY_BYTES, Seal
from emp_orch.settings import InputLimits, Listen, Settings, save
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.generations import Generation, current_number, publish, without_secrets
from emp_orch.store.fleet.leader import Leadership, Mandate
from emp_orch.store.fleet.status import FleetStatus, PoolStatus, write_status
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import machine_writer, worker_writer

FLEET = "basic"
SERVICES = ("simulation", "comfyui")
DEADLINE_S = 20.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def eventually(check: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true answer of `check`."""
    end = time.monotonic() + deadline_s
    while True:
        if found := await check():
            return found
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.05)


class Process:
    """A process of ours, its stderr in a file, ended by pid."""

    def __init__(self, argv: list[str], log: Path, cwd: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as f:
            self.popen = subprocess.Popen(argv, stdout=f, stderr=f, cwd=cwd, env=env)

    def stop(self, sig: signal.Signals = signal.SIGTERM, deadline_s: float = 10) -> int:
        """Ends it; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    @property
    def text(self) -> str:
        return self.log.read_text()


class Redis(Process):
    """redis-server with an append-only file on a free loopback port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        super().__init__([*argv, "--appendonly", "yes", "--appendfsync", "always"], folder / "redis.out", folder)
        end = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                return
            assert time.monotonic() < end, self.text
            time.sleep(0.02)


def service(name: str) -> Service:
    return Service(
        name=ServiceName(name),
        scale=Scale.PER_GPU if name == "comfyui" else Scale.PER_MACHINE,
        command=None,
        builtin="simulation",
        connector=name,
        port=8188 if name == "comfyui" else 8299,
        health=None,
        install=None,
        env={},
        cwd=None,
        stop=Stop(signal="TERM", timeout_s=5),
        start_s=1,
        depends_on=(),
        origin="emp.yaml:8:3",
    )


def fleet_of(*machines: str, num_gpus: int = 2) -> Fleet:
    return Fleet(
        name=FLEET,
        redis=RedisSpec(url="", port=0, machine_url="", prefix=""),
        api=Endpoint(host="127.0.0.1", port=1, token=None),
        monitor=Endpoint(host="127.0.0.1", port=2, token=None),
        services={ServiceName(s): service(s) for s in SERVICES},
        machines=tuple(
            Machine(
                id=MachineId(name),
                runtime=RuntimeKind.PROCESS,
                num_gpus=num_gpus,
                services=tuple(ServiceName(s) for s in SERVICES),
                env={},
                gpus=Gpus(kind=GpuKind.NONE, ids=()),
                host=None,
                image=None,
                ports={},
                port_offset=0,
                health_port=9090 + i,
                labels={},
                worker=WorkerSpec(capabilities={}, drain_timeout_s=5, job_timeout_s=60),
                origin=f"emp.yaml:{20 + 4 * i}:3",
            )
            for i, name in enumerate(machines)
        ),
        jobs=JobsSpec(artifacts="", keep_count=10_000, keep_age_s=604_800.0, lease_s=30.0),
        reconcile=ReconcileSpec(
            interval_s=1,
            stale_after_s=10,
            max_unavailable=1,
            prune=False,
            budget=BudgetSpec(program=5, machine=3, window_s=1800.0),
            breaker=BreakerSpec(share=0.5, window_s=120.0, probe_s=60.0),
            rollout=RolloutSpec(min_healthy_s=0.0, progress_deadline_s=600.0, rollback=False),
        ),
    )


class Producer:
    """Writes what agents, workers and the reconciler write, through the store's own writers."""

    def __init__(self, redis: Client, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.events = Events(redis, keys)
        self.generation = 0
        # The key of the fleet whose control plane is to believe what is published here.
        self.seal = Seal(bytes(KEY_BYTES))

    async def apply(self, fleet: Fleet, package: WorkerPackage | None = None) -> Generation:
        number = await current_number(self.redis, self.keys, fleet.name) + 1
        generation = Generation(
            number=number,
            at_ms=await time_ms(self.redis),
            fleet=without_secrets(fleet),
            digest=hashlib.sha256(repr(fleet).encode()).hexdigest()[:16],
            package=package,
        )
        assert await publish(self.redis, self.keys, generation, self.seal)
        self.generation = number
        return generation

    async def machine(
        self, fleet: Fleet, machine_id: str, *, status: MachineStatus = MachineStatus.READY, **states: ProgramReport
    ) -> None:
        """Report a machine as the fleet wants it, except for the programs in `states`."""
        now = await time_ms(self.redis)
        desired = desired_machines(fleet)[MachineId(machine_id)]
        programs = {
            p.name: ProgramReport(state=ProgramState.EXITED, exit_status=0, since_ms=now)
            if p.kind.once
            else ProgramReport(state=ProgramState.RUNNING, pid=4000 + i, since_ms=now, healthy=True)
            for i, p in enumerate(desired.programs)
        }
        programs.update({ProgramName(k.replace("_", "-")): v for k, v in states.items()})
        report = MachineReport(
            machine_id=MachineId(machine_id),
            status=status,
            boot_id="boot-1",
            generation=self.generation,
            config_hash=config_hash(desired),
            num_gpus=desired.num_gpus,
            programs=programs,
            host="workstation",
            agent_version="0.1.0",
            started_ms=now - 60_000,
            gpus=tuple(GpuReport(index=i, name="Simulated", memory_mib=24_576) for i in range(desired.num_gpus)),
            health_port=desired.health_port,
        )
        await machine_writer(self.redis, self.keys, machine_id).write(report)

    async def worker(
        self,
        machine_id: str,
        gpu: int,
        *,
        status: WorkerStatus = WorkerStatus.IDLE,
        connector: ConnectorStatus = ConnectorStatus.IDLE,
        detail: str = "",
        job: str | None = None,
    ) -> None:
        worker_id = f"{machine_id}-worker-{gpu}"
        report = WorkerReport(
            worker_id=WorkerId(worker_id),
            machine_id=MachineId(machine_id),
            gpu=gpu,
            status=status,
            capabilities={"services": list(SERVICES)},
            connector_statuses={
                "simulation": ConnectorReport(status=ConnectorStatus.IDLE, version="0.1.0"),
                "comfyui": ConnectorReport(status=connector, detail=detail),
            },
            started_ms=await time_ms(self.redis) - 50_000,
            pid=5000 + gpu,
            current_job_id=job,
            jobs_completed=12,
        )
        await worker_writer(self.redis, self.keys, worker_id).write(report)

    async def mandate(self, leader: str = "reconciler-1") -> Mandate:
        """What a reconciler of that name may write under."""
        mandate = await Leadership(self.redis, self.keys, FLEET, leader, ttl_ms=60_000).acquire()
        assert isinstance(mandate, Mandate), mandate
        return mandate

    async def status(
        self,
        *drift: Item,
        plan: tuple[str, ...] = (),
        leader: str = "reconciler-1",
        pools: dict[PoolName, PoolStatus] | None = None,
        courses_ms: int = 0,
    ) -> None:
        mandate = await self.mandate(leader)
        status = FleetStatus(
            fleet=FLEET,
            generation=self.generation,
            leader=leader,
            epoch=mandate.epoch,
            at_ms=await time_ms(self.redis),
            interval_ms=1_000,
            drift=drift,
            plan=plan,
            pools=pools or {},
            courses_ms=courses_ms,
        )
        await write_status(self.redis, self.keys, mandate, status)

    async def silence(self, machine_id: str, age_ms: int) -> None:
        """Let the last report of a machine lie `age_ms` back."""
        await self.redis.zadd(self.keys.machines_seen, {machine_id: await time_ms(self.redis) - age_ms})

    async def drift(self, machine_id: str, subject: str, **more: Any) -> Item:
        now = await time_ms(self.redis)
        drift = Drift(
            kind=more.pop("kind", Kind.PROGRAM_FATAL),
            machine_id=MachineId(machine_id),
            subject=subject,
            desired=more.pop("desired", "RUNNING"),
            observed=more.pop("observed", "FATAL"),
            cause=more.pop("cause", "supervisord gave up after its retries"),
            origin=more.pop("origin", "emp.yaml:20:3"),
            program=ProgramName(subject),
        )
        fields = {"action": "start program", "attempts": 2, "next_attempt_ms": now + 8_000, **more}
        return Item(drift=drift, since_ms=now - more.pop("age_ms", 3_000), **_without(fields, "age_ms"))


def _without(fields: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k != key}


# What the Stack takes as one input file.
INPUT_MAX_BYTES = 8 * 1024**2


class Stack:
    """One fleet's folder with its Redis and daemons on free ports."""

    def __init__(self, root: Path, **listen: Any) -> None:
        self.layout = Layout(root)
        for folder in (self.layout.control, self.layout.logs, self.layout.redis):
            folder.mkdir(parents=True)
        self.redis_port = free_port()
        self.settings = Settings(
            fleet=FLEET,
            redis_url=f"redis://127.0.0.1:{self.redis_port}/0",
            machine_redis_url=f"redis://127.0.0.1:{self.redis_port}/0",
            embedded=True,
            redis_port=self.redis_port,
            prefix="",
            artifacts=self.layout.artifacts_url,
            api=Listen(
                host=listen.get("host", "127.0.0.1"),
                port=free_port(),
                token=listen.get("token"),
                tokens=listen.get("tokens", ()),
            ),
            monitor=Listen(
                host="127.0.0.1",
                port=free_port(),
                token=listen.get("monitor_token"),
                role=listen.get("monitor_role", Role.OPERATE),
            ),
            door=listen.get("door", ()),
            inputs=InputLimits(hosts=("images.example.org",), max_bytes=INPUT_MAX_BYTES),
        )
        save(self.layout, self.settings)
        self.redis: Redis | None = None
        self.daemons: dict[str, Process] = {}

    @property
    def api(self) -> str:
        return self.settings.api.url

    @property
    def monitor(self) -> str:
        return self.settings.monitor.url

    def start_redis(self) -> None:
        self.redis = Redis(self.layout.redis, self.redis_port)

    def stop_redis(self) -> None:
        assert self.redis is not None
        self.redis.stop()

    async def restart_redis(self, producer: Producer) -> None:
        """Stop and start it; the producer's connections are made anew."""
        self.stop_redis()
        self.start_redis()
        await producer.redis.connection_pool.disconnect()

    def start(self, name: str) -> Process:
        argv = [sys.executable, "-m", "emp_orch", "-C", str(self.layout.root), name]
        self.daemons[name] = Process(argv, self.layout.log(name), self.layout.root)
        return self.daemons[name]

    def stop(self, name: str, sig: signal.Signals = signal.SIGTERM) -> int:
        return self.daemons.pop(name).stop(sig)

    def close(self) -> None:
        for process in [*self.daemons.values(), *([self.redis] if self.redis else [])]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.stop()

    async def answers(self, url: str) -> None:
        async def check() -> bool:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with aiohttp.ClientSession() as session, session.get(url) as response:
                    return response.status == 200
            return False

        try:
            await eventually(check, f"{url} answers")
        except AssertionError as e:
            logs = "\n".join(f"--- {n}\n{p.text[-3000:]}" for n, p in self.daemons.items())
            raise AssertionError(f"{e}\n{logs}") from e

    async def up(self) -> None:
        """Redis, API and monitor, ready."""
        self.start_redis()
        self.start("api")
        self.start("monitor")
        await self.answers(f"{self.api}/ready")
        await self.answers(f"{self.monitor}/ready")

    @contextlib.contextmanager
    def running(self) -> Iterator[Stack]:
        try:
            yield self
        finally:
            self.close()

    def client(self) -> Client:
        return client(self.settings.redis_url)


def body_of(text: str) -> dict[str, Any]:
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1"}
