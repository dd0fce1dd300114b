"""Kills on a real machine: how soon a killed program runs again, and a killed worker is idle again.

All contenders run side by side on this host, and are hit in shuffled order, so that each round is like the next.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import redis
from msgspec import Struct

from bench.queue.measure import quantile
from bench.queue.server import BenchRedis, free_port
from bench.reconcile.children import Failed, daemon, environment
from bench.reconcile.contenders import EMP, MACHINE, SLOTS, STARTS, Ground, slot_name
from bench.reconcile.pulses import Pulse, Pulses
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import WorkerReport, WorkerStatus
from emp_orch.store.fleet.events import decode, entries_of
from emp_orch.store.redis.keys import Keys

AGAIN_S = 30.0
# supervisord's startsecs, emp's `start` and pm2's min_uptime are all 1 s: who ends sooner was never started.
LIVED_S = 1.2
WORKER = "emp worker"
ALONE = "emp worker, started alone"
ALONE_MACHINE = MachineId("alone")


class Healing(Struct, frozen=True, kw_only=True):
    """Milliseconds from a kill (for a worker started alone: from its start) until it runs, or is idle, again."""

    what: str
    took_ms: tuple[float, ...]

    def quantile(self, part: float) -> float:
        return quantile(sorted(self.took_ms), part)


class Workers:
    """The workers by their own word in Redis: an event says when one has become idle."""

    def __init__(self, redis_port: int) -> None:
        self._r: redis.Redis = redis.Redis(port=redis_port, decode_responses=True, socket_timeout=AGAIN_S * 2)
        self._keys = Keys()

    def close(self) -> None:
        self._r.close()

    def position(self) -> str:
        entries = self._r.xrevrange(self._keys.events, count=1)
        return str(entries[0][0]) if entries else "0-0"

    def report(self, worker: WorkerId) -> WorkerReport:
        """Raises Failed when it does not report."""
        text = self._r.hget(self._keys.workers, worker)
        if text is None:
            raise Failed(f"{worker} does not report")
        return msgspec.json.decode(text, type=WorkerReport)

    def idle(self, worker: WorkerId, after: str) -> int:
        """Wait until `worker` says that it is idle, and its report says so; when that was, in ns. Raises Failed."""
        deadline = time.monotonic() + AGAIN_S
        while (left := deadline - time.monotonic()) > 0:
            answer = self._r.xread({self._keys.events: after}, count=500, block=max(1, int(left * 1000)))
            for entry_id, fields in entries_of(answer):
                after, event = entry_id, decode(entry_id, fields)
                about = (event.type, event.data.get("worker_id"), event.data.get("status"))
                if about == ("worker_status", worker, WorkerStatus.IDLE):
                    return self._reported(worker, deadline)
        raise Failed(f"{worker} was not idle within {AGAIN_S:.0f} s")

    def _reported(self, worker: WorkerId, deadline: float) -> int:
        """The event may come just before the report that it tells of."""
        while self.report(worker).status is not WorkerStatus.IDLE:
            if time.monotonic() > deadline:
                raise Failed(f"{worker} said that it is idle, and its report does not")
            time.sleep(0.001)
        return time.monotonic_ns()


def _lived(since_ns: int) -> None:
    """Return when what began at `since_ns` counts as started."""
    time.sleep(max(0.0, LIVED_S - (time.monotonic_ns() - since_ns) / 1e9))


class Hits:
    """What is killed and waited for: one call is one hit, and answers how many milliseconds it took."""

    def __init__(self, pulses: Pulses, workers: Workers, ground: Ground) -> None:
        self._pulses = pulses
        self._workers = workers
        self._ground = ground
        self._idle_since: dict[WorkerId, int] = {}

    def program(self, contender: str, slot: int) -> float:
        name = slot_name(contender, slot)
        running: Pulse = self._pulses.after(name, 0, AGAIN_S)
        _lived(running.at_ns)
        began = time.monotonic_ns()
        os.kill(running.pid, signal.SIGKILL)
        return (self._pulses.after(name, began, AGAIN_S).at_ns - began) / 1e6

    def worker(self, slot: int) -> float:
        worker = worker_id(MachineId(MACHINE), slot)
        _lived(self._idle_since.get(worker, 0))
        position = self._workers.position()
        pid = self._workers.report(worker).pid
        began = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        idle = self._workers.idle(worker, position)
        if self._workers.report(worker).pid == pid:
            raise Failed(f"{worker} outlived its kill")
        self._idle_since[worker] = idle
        return (idle - began) / 1e6

    def alone(self, _slot: int) -> float:
        """A worker that nobody keeps alive, with the same service as the machine's."""
        argv = (sys.executable, "-m", "emp_orch", "worker", "--machine", ALONE_MACHINE)
        service = f"simulation=simulation@http://127.0.0.1:{self._ground.simulation_port}"
        env = environment(HUB_REDIS_URL=self._ground.redis_url)
        position = self._workers.position()
        began = time.monotonic_ns()
        with daemon((*argv, "--service", service), log=self._ground.folder / "alone.log", env=env):
            return (self._workers.idle(worker_id(ALONE_MACHINE, 0), position) - began) / 1e6


def measure(redis: BenchRedis, folder: Path, cache: Path, contenders: tuple[str, ...], kills: int) -> list[Healing]:
    """`kills` of each. Raises Failed."""
    redis.clear()
    simulation_port = free_port()
    with ExitStack() as stack:
        pulses = Pulses(folder / "pulses")
        stack.callback(pulses.close)
        workers = Workers(redis.port)
        stack.callback(workers.close)

        def ground(name: str) -> Ground:
            own = folder / name.replace(" ", "-")
            own.mkdir()
            return Ground(folder=own, pulses=pulses, redis_url=redis.url, cache=cache, simulation_port=simulation_port)

        grounds = {name: ground(name) for name in contenders}
        for name in contenders:
            stack.enter_context(STARTS[name](grounds[name]))
        hits = Hits(pulses, workers, grounds[EMP])
        return _all(hits, contenders, kills)


def _all(hits: Hits, contenders: tuple[str, ...], kills: int) -> list[Healing]:
    took: dict[str, list[float]] = {name: [] for name in (*contenders, WORKER, ALONE)}
    chance = random.Random(0)
    for number in range(kills):
        order = list(took)
        chance.shuffle(order)
        for name in order:
            time.sleep(chance.uniform(0.0, 0.3))  # not in step with anybody's loop
            slot = number % SLOTS
            match name:
                case "emp worker":
                    took[name].append(hits.worker(slot))
                case "emp worker, started alone":
                    took[name].append(hits.alone(slot))
                case _:
                    took[name].append(hits.program(name, slot))
    return [Healing(what=name, took_ms=tuple(ms)) for name, ms in took.items()]
