"""One peer, one round: put jobs in, drain them, watch the idle worker, time single jobs, put many in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct

from bench.peers.given import BEGAN, ENQUEUED
from bench.peers.marks import Marks
from bench.queue import emp_peer
from bench.queue.monitor import watch
from bench.queue.noise import Noise
from bench.queue.peers import Mode, Peer
from bench.queue.plan import Plan
from bench.queue.processes import PeerFailed, Stage, Worker
from bench.queue.server import BenchRedis

SLOTS = 40_000
DRAIN_S = 120.0


class Drain(Struct, frozen=True, kw_only=True):
    """Jobs put in and processed: rates in jobs a second, Redis costs per job.

    `one_per_s` None: they were put in many at once. `left`: jobs that had not ended at last (emp only).
    """

    one_per_s: float | None
    noop_per_s: float
    enqueue_us: float
    enqueue_commands: float
    process_us: float
    process_commands: float
    left: int | None = None

    @property
    def life_us(self) -> float:
        return self.enqueue_us + self.process_us

    @property
    def life_commands(self) -> float:
        return self.enqueue_commands + self.process_commands


class Idle(Struct, frozen=True, kw_only=True):
    """Commands a second of a worker without jobs: all that ran; those that clients sent; emp's heartbeats of these."""

    idle_per_s: float
    idle_sent_per_s: float
    idle_heartbeats_per_s: float


class Dispatch(Struct, frozen=True, kw_only=True):
    """From the call to enqueue until the job begins, the worker being idle."""

    dispatch_p50_ms: float
    dispatch_p99_ms: float


class Many(Struct, frozen=True, kw_only=True):
    """Jobs put in as many at once as the peer can."""

    many_per_s: float
    many_us: float


class Sample(Struct, frozen=True, kw_only=True):
    """What one round found; None: not measured in it."""

    peer: str
    round: int
    jobs: int
    drain: Drain
    idle: Idle | None = None
    dispatch: Dispatch | None = None
    many: Many | None = None
    others_cores: float | None = None


class Ground:
    """Where rounds take place: one Redis, one stage, one set of marks."""

    def __init__(self, redis: BenchRedis, stage: Stage, plan: Plan) -> None:
        self.redis = redis
        self.stage = stage
        self.plan = plan
        self.began = Marks.create(stage.folder / BEGAN, SLOTS)
        self.enqueued = Marks.create(stage.folder / ENQUEUED, SLOTS)

    def clear(self) -> None:
        self.redis.clear()
        self.began.clear()
        self.enqueued.clear()

    def until_ran(self, worker: Worker, count: int, first: int = 0) -> None:
        """Wait until all jobs have begun. Raises PeerFailed."""
        deadline = time.monotonic() + DRAIN_S
        while left := self.began.read(first, count).count(0):
            worker.check()
            if time.monotonic() > deadline:
                raise PeerFailed(f"{left} of {count} jobs did not run in {DRAIN_S:.0f} s: {worker.words()}")
            time.sleep(0.02)


def rate(stamps: tuple[int, ...]) -> float:
    """Jobs a second between the first and the last tenth: start and tail say nothing of the rate."""
    ordered = sorted(stamps)
    low, high = len(ordered) // 10, len(ordered) * 9 // 10
    return (high - low) / max((ordered[high] - ordered[low]) / 1e9, 1e-9)


def quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _drain(ground: Ground, peer: Peer, count: int, then: Callable[[Worker], None]) -> Drain:
    """A full queue, one worker that empties it; `then` looks at that worker before it is stopped."""
    redis = ground.redis
    ground.clear()
    empty = redis.load()
    put = ground.stage.produce(peer, peer.fill, count)
    full = redis.load()
    with ground.stage.worker(peer.worker) as worker:
        ground.until_ran(worker, count)
        redis.settle()
        done = redis.load()
        left = asyncio.run(emp_peer.unfinished(redis.url)) if peer.is_emp else None
        then(worker)
    enqueue, process = full.since(empty), done.since(full)
    return Drain(
        one_per_s=put if peer.fill is Mode.ONE else None,
        noop_per_s=rate(ground.began.read(0, count)),
        enqueue_us=enqueue.cpu_s / count * 1e6,
        enqueue_commands=enqueue.commands / count,
        process_us=process.cpu_s / count * 1e6,
        process_commands=process.commands / count,
        left=left,
    )


def _idle(ground: Ground, peer: Peer) -> Idle:
    """A running worker with nothing to do."""
    redis, window_s = ground.redis, ground.plan.idle_s * peer.watch
    before = redis.load()
    sent = watch(redis.port, window_s, emp_peer.HEARTBEAT_KEY)
    return Idle(
        idle_per_s=redis.load().since(before).commands / window_s,
        idle_sent_per_s=sent.commands / window_s,
        idle_heartbeats_per_s=sent.heartbeats / window_s,
    )


def _dispatch(ground: Ground, peer: Peer, worker: Worker, first: int) -> Dispatch:
    """An idle worker that gets single jobs."""
    count = ground.plan.paced
    ground.stage.produce(peer, Mode.PACED, count, first)
    ground.until_ran(worker, count, first)
    began, enqueued = ground.began.read(first, count), ground.enqueued.read(first, count)
    took = sorted((b - e) / 1e6 for b, e in zip(began[1:], enqueued[1:], strict=True))
    return Dispatch(dispatch_p50_ms=quantile(took, 0.50), dispatch_p99_ms=quantile(took, 0.99))


def _many(ground: Ground, peer: Peer, mode: Mode, count: int) -> Many:
    ground.clear()
    before = ground.redis.load()
    per_s = ground.stage.produce(peer, mode, count)
    return Many(many_per_s=per_s, many_us=ground.redis.load().since(before).cpu_s / count * 1e6)


def _quiet(ground: Ground, peer: Peer, worker: Worker, first: int, number: int) -> tuple[Idle | None, Dispatch]:
    """A worker that is up and has nothing to do; how idle it is says one round well enough."""
    idle = _idle(ground, peer) if number == 0 else None
    worker.check()
    return idle, _dispatch(ground, peer, worker, first)


def measure(ground: Ground, peer: Peer, number: int) -> Sample:
    """One round of `peer`. Raises PeerFailed."""
    noise = Noise(ground.redis)
    count = max(20, int(peer.jobs * ground.plan.jobs))
    seen: list[tuple[Idle | None, Dispatch]] = []

    def look(worker: Worker) -> None:
        if not peer.drain_only and not peer.quiet_worker:
            seen.append(_quiet(ground, peer, worker, count, number))

    drain = _drain(ground, peer, count, look)
    if peer.quiet_worker and not peer.drain_only:
        ground.clear()
        with ground.stage.worker(peer.quiet_worker) as worker:
            # A first job, so that the worker is up and has run something, as the others' have.
            ground.stage.produce(peer, Mode.ONE, 1, count)
            ground.until_ran(worker, 1, count)
            ground.redis.settle()
            seen.append(_quiet(ground, peer, worker, count + 1, number))
    many = _many(ground, peer, peer.many, count) if peer.many and not peer.drain_only else None
    idle, dispatch = seen[0] if seen else (None, None)
    return Sample(
        peer=peer.name,
        round=number,
        jobs=count,
        drain=drain,
        idle=idle,
        dispatch=dispatch,
        many=many,
        others_cores=noise.cores(),
    )
