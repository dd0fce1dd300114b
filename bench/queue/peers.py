"""Who takes part, and how each one's producer and worker are started."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from bench.peers import setup
from bench.queue.emp_connector import KIND
from bench.queue.emp_peer import SERVICE

PEERS_HERE = Path(setup.__file__).parent
EMP = "emp"
EMP_SEVERAL = "emp, several a claim"
EMP_WORKER = "emp worker"
EMP_ROWS = frozenset({EMP, EMP_SEVERAL, EMP_WORKER})

EMP_SLOTS = 50
EMP_SLOTS_SEVERAL = 2
EMP_BATCH = 32


class Mode(StrEnum):
    """How jobs are put in: the modes of bench.peers.produce."""

    ONE = "one"
    FLIGHT = "flight"
    BULK = "bulk"
    PACED = "paced"


class Peer(Struct, frozen=True, kw_only=True):
    """`producer` and `worker` are argv. `many`: the way it takes many jobs fastest, None for one that has none.

    `quiet_worker`: the worker for idleness and latency, where that is not the one for throughput. `jobs`: how
    many make a run of seconds. `drain_only`: a second worker setting of a peer whose other figures are known.
    `watch`: how many times longer its idle worker is watched, for one that comes back seldom.
    """

    name: str
    producer: tuple[str, ...]
    worker: tuple[str, ...]
    jobs: int
    many: Mode | None
    python: bool = True
    quiet_worker: tuple[str, ...] = ()
    drain_only: bool = False
    watch: float = 1.0

    @property
    def is_emp(self) -> bool:
        return self.name in EMP_ROWS

    @property
    def fill(self) -> Mode:
        """How the queue is filled for the worker to drain."""
        return self.many if self.drain_only and self.many else Mode.ONE


def emp() -> tuple[Peer, ...]:
    producer = (sys.executable, "-m", "bench.peers.produce", "bench.queue.emp_peer")
    worker = (sys.executable, "-m", "bench.queue.emp_worker")
    whole = (sys.executable, "-m", "emp_orch", "worker", "--machine", "bench")
    return (
        Peer(
            name=EMP,
            producer=producer,
            worker=(*worker, "--slots", str(EMP_SLOTS)),
            quiet_worker=(*worker, "--slots", "1"),  # what a machine runs: one worker, one GPU slot
            jobs=10_000,
            many=Mode.BULK,
        ),
        Peer(
            name=EMP_SEVERAL,
            producer=producer,
            worker=(*worker, "--slots", str(EMP_SLOTS_SEVERAL), "--several", str(EMP_BATCH)),
            jobs=30_000,
            many=Mode.BULK,
            drain_only=True,
        ),
        Peer(
            name=EMP_WORKER,
            producer=producer,
            worker=(*whole, "--service", f"{SERVICE}={KIND}@http://127.0.0.1:1"),
            jobs=2_000,
            many=None,
            watch=2.1,  # its longest wait is 20 s
        ),
    )


def others(cache: Path) -> tuple[Peer, ...]:
    """The peers in the settings they are fastest in, as installed under `cache`."""

    def program(peer: str, name: str = "python") -> str:
        return str(setup.folder(cache, peer) / "bin" / name)

    def python(peer: str, worker: tuple[str, ...], jobs: int, many: Mode | None) -> Peer:
        producer = (program(peer), "-m", "bench.peers.produce", f"bench.peers.{peer}_peer")
        return Peer(name=peer, producer=producer, worker=worker, jobs=jobs, many=many)

    taskiq = (program("taskiq", "taskiq"), "worker", "--workers", "1", "--log-level", "ERROR")
    huey = (program("huey", "huey_consumer"), "bench.peers.huey_peer.huey", "-w", "4", "-k", "thread", "-q", "-n")
    bullmq = ("node", str(PEERS_HERE / "bullmq_peer.mjs"))
    return (
        python("arq", (program("arq"), "-m", "bench.peers.arq_peer"), 6_000, Mode.FLIGHT),
        python("saq", (program("saq"), "-m", "bench.peers.saq_peer"), 8_000, Mode.FLIGHT),
        python("taskiq", (*taskiq, "--max-async-tasks", "100", "bench.peers.taskiq_peer:broker"), 8_000, Mode.FLIGHT),
        python("huey", huey, 8_000, None),
        Peer(name="bullmq", producer=bullmq, worker=(*bullmq, "worker"), jobs=16_000, many=Mode.BULK, python=False),
    )
