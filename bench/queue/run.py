"""One run: rounds in shuffled order on one Redis, then the claims, then the plain limit."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from bench.peers import pins, setup
from bench.queue import claim_cost, limits, server
from bench.queue.measure import Ground, Sample, measure
from bench.queue.noise import Noise
from bench.queue.peers import Peer
from bench.queue.plan import Plan
from bench.queue.processes import PeerFailed, Stage
from bench.queue.report import Missing, Report, measured_on, summarise

Say = Callable[[str], None]


class Choice(Struct, frozen=True, kw_only=True):
    """Who takes part, and whether emp's claims and the plain limit are measured too."""

    peers: tuple[Peer, ...]
    claims: bool
    limits: bool


def installed(cache: Path, peers: Sequence[Peer], say: Say) -> tuple[list[Peer], list[Missing]]:
    """The peers that are there or can be installed, and those that cannot."""
    ready, missing = [], []
    for peer in peers:
        try:
            if peer.name in pins.PYTHON or peer.name in pins.NODE:
                setup.ensure(cache, peer.name)
            ready.append(peer)
        except setup.CannotInstall as e:
            say(f"{peer.name} cannot be installed: {e}")
            missing.append(Missing(peer=peer.name, reason=f"cannot be installed: {e}"))
    return ready, missing


def _rounds(ground: Ground, peers: Sequence[Peer], say: Say) -> tuple[list[Sample], list[Missing]]:
    samples: list[Sample] = []
    failed: list[Missing] = []
    for number in range(ground.plan.rounds):
        order = list(peers)
        random.Random(number).shuffle(order)
        for peer in order:
            try:
                sample = measure(ground, peer, number)
            except PeerFailed as e:
                say(f"round {number + 1}: {peer.name} failed: {e}")
                failed.append(Missing(peer=peer.name, reason=f"round {number + 1}: {e}"))
                continue
            samples.append(sample)
            say(
                f"round {number + 1}: {peer.name}: {sample.drain.noop_per_s:,.0f} jobs/s, {sample.drain.life_us:.0f} µs"
            )
    places = {peer.name: k for k, peer in enumerate(peers)}
    return sorted(samples, key=lambda s: (places[s.peer], s.round)), failed


def run(choice: Choice, plan: Plan, cache: Path, say: Say) -> Report:
    """Measure everything that was chosen; what fails is in the report's `missing`."""
    peers, missing = installed(cache, choice.peers, say)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as name, server.running(Path(name)) as redis:
        noise = Noise(redis)
        ground = Ground(redis, Stage(redis.url, Path(name), cache), plan)
        samples, failed = _rounds(ground, peers, say)
        costs = []
        for case in claim_cost.cases(plan) if choice.claims else ():
            costs.append(asyncio.run(claim_cost.cost(redis, case, plan.claims)))
            say(f"claim, {case.name}: {costs[-1].client_us:.0f} µs")
        limit = limits.measure(redis, plan.limit) if choice.limits else ()
        machine = measured_on(redis.version(), before, noise.cores())
    return Report(
        plan=plan,
        machine=machine,
        pins={**pins.PYTHON, **pins.NODE},
        samples=tuple(samples),
        summaries=summarise(samples),
        claims=tuple(costs),
        limits=limit,
        missing=(*missing, *failed),
    )
