"""One run: emp's API and one that sends everything, each with a crowd of clients, while the same fleet changes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from bench.queue import server
from bench.queue.noise import Noise
from bench.queue.report import Machine, Missing, measured_on
from bench.queue.server import BenchRedis, free_port
from bench.reconcile import simulated
from bench.reconcile.children import Child, Failed, child, daemon
from bench.stream.plan import Plan
from bench.stream.serving import Server, cpu_s, emp, memory_mib, until_up
from emp_orch import settings
from emp_orch.layout import Layout

Say = Callable[[str], None]


class Streamed(Struct, frozen=True, kw_only=True):
    """One crowd. `cpu_s` of the process that serves it, and `idle_cpu_s` of as long with the crowd but without changes.

    `told`: changes that the client told least was told of. `snapshots`: how often one had to begin anew.
    """

    what: str
    clients: int
    changes: int
    seconds: float
    joined_s: float
    p50_ms: float
    p99_ms: float
    told: int
    gaps: int
    snapshots: int
    bytes: int
    cpu_s: float
    idle_cpu_s: float
    rss_before_mib: float
    rss_joined_mib: float
    rss_after_mib: float
    rss_most_mib: float

    @property
    def cpu_ms_per_change(self) -> float:
        return 1_000 * self.cpu_s / self.changes

    @property
    def bytes_per_change(self) -> float:
        """To one client."""
        return self.bytes / self.clients / self.changes


class Report(Struct, frozen=True, kw_only=True):
    plan: Plan
    machine: Machine
    streamed: tuple[Streamed, ...]
    missing: tuple[Missing, ...]


@contextmanager
def _naive(folder: Path, redis_url: str) -> Iterator[Server]:
    port = free_port()
    argv = (sys.executable, "-m", "bench.stream.naive", redis_url, str(port))
    with daemon(argv, log=folder / "naive.log") as process:
        url = f"http://127.0.0.1:{port}"
        until_up(f"{url}/up")
        yield Server(url=url, path="/", pid=process.pid)


def _streamed(what: str, at: Server, fleet: Child, folder: Path, plan: Plan, clients: int, looking: int) -> Streamed:
    log = folder / f"{what.replace(' ', '-').replace(',', '')}.log"
    with child("bench.stream.clients", log=log) as crowd:
        before = memory_mib(at.pid)
        joined = crowd.ask("join", url=at.url, path=at.path, clients=clients, looking=looking)
        joined_mib = memory_mib(at.pid)
        time.sleep(plan.settle_s)
        idle = cpu_s(at.pid)
        time.sleep(plan.seconds)
        began = cpu_s(at.pid)
        crowd.ask("begin")
        made = fleet.ask("change", per_s=plan.per_s, seconds=plan.seconds)
        said = crowd.ask("said", changes=made["made"])
        ended = cpu_s(at.pid)
        after = memory_mib(at.pid)
        crowd.ask("leave")
    return Streamed(
        what=what,
        clients=clients,
        changes=made["made"],
        seconds=made["seconds"],
        joined_s=joined["joined_s"],
        p50_ms=said["p50_ms"],
        p99_ms=said["p99_ms"],
        told=said["least_told"],
        gaps=said["gaps"],
        snapshots=said["snapshots"],
        bytes=said["bytes"],
        cpu_s=ended - began,
        idle_cpu_s=began - idle,
        rss_before_mib=before,
        rss_joined_mib=joined_mib,
        rss_after_mib=after,
        rss_most_mib=memory_mib(at.pid, "VmHWM"),
    )


def _measured(redis: BenchRedis, folder: Path, plan: Plan, say: Say, missing: list[Missing]) -> list[Streamed]:
    layout = Layout(folder)
    layout.control.mkdir(parents=True, exist_ok=True)
    made = simulated.settings_of(redis.url, layout, api=free_port(), monitor=free_port())
    settings.save(layout, made)
    found: list[Streamed] = []

    def tried(what: str, at: Server, clients: int, looking: int) -> None:
        try:
            one = _streamed(what, at, fleet, folder, plan, clients, looking)
        except Failed as e:
            missing.append(Missing(peer=what, reason=str(e)))
            say(f"{what} failed: {e}")
            return
        found.append(one)
        say(f"{what}: p50 {one.p50_ms:.0f} ms, {one.cpu_ms_per_change:.2f} ms CPU a change")

    size = (str(plan.machines), str(plan.gpus))
    with child("bench.stream.changes", redis.url, *size, log=folder / "changes.log") as fleet:
        fleet.ask("ready")
        # Each with a process of its own, so that memory is of one crowd.
        with emp(folder, made, "api") as api:
            tried("emp", api, plan.clients, plan.clients)
        with emp(folder, made, "api") as api:
            tried("emp, few", api, plan.few, plan.few)
        with _naive(folder, redis.url) as naive:
            tried("whole state, few", naive, plan.few, 1)
        with emp(folder, made, "api"), emp(folder, made, "monitor") as monitor:
            tried("emp, through the monitor", monitor, plan.proxied, plan.proxied)
    return found


def run(plan: Plan, say: Say) -> Report:
    before = os.getloadavg()
    missing: list[Missing] = []
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as name, server.running(Path(name)) as redis:
        noise = Noise(redis)
        time.sleep(plan.settle_s)
        others = noise.cores()
        found = _measured(redis, Path(name) / "fleet", plan, say, missing)
        machine = measured_on(redis.version(), before, others)
    return Report(plan=plan, machine=machine, streamed=tuple(found), missing=tuple(missing))
