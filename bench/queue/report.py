"""All that one run found: the values that go into the JSON, and their medians."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from bench.queue.claim_cost import ClaimCost
from bench.queue.limits import Limit
from bench.queue.measure import Sample
from bench.queue.plan import Plan


class Machine(Struct, frozen=True, kw_only=True):
    """Where and when, and how busy it was besides: `others_cores` is how many cores others used on average."""

    at: str
    cores: int
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    others_cores: float | None
    redis: str
    python: str
    platform: str


def measured_on(redis: str, before: tuple[float, float, float], others_cores: float | None) -> Machine:
    """This machine, now; `before` is its load before the run, `redis` the server and its version."""
    return Machine(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=os.cpu_count() or 1,
        load_before=before,
        load_after=os.getloadavg(),
        others_cores=others_cores,
        redis=redis,
        python=platform.python_version(),
        platform=f"{sys.platform} {platform.machine()}",
    )


class Missing(Struct, frozen=True, kw_only=True):
    """A peer without a figure: not installed, or failed in a round."""

    peer: str
    reason: str


class Summary(Struct, frozen=True, kw_only=True):
    """A peer's figures in the order of its rounds, and their medians, by the names of the fields of Sample's parts."""

    peer: str
    rounds: int
    values: dict[str, tuple[float, ...]]
    medians: dict[str, float]

    def get(self, name: str) -> float | None:
        """The median of the rounds that have this figure."""
        return self.medians.get(name)


def summary(peer: str, values: dict[str, tuple[float, ...]]) -> Summary:
    """`values` are a peer's figures by name, round after round."""
    medians = {name: float(statistics.median(found)) for name, found in values.items()}
    return Summary(peer=peer, rounds=max(map(len, values.values())), values=values, medians=medians)


class Report(Struct, frozen=True, kw_only=True):
    plan: Plan
    machine: Machine
    pins: dict[str, tuple[str, ...]]
    samples: tuple[Sample, ...]
    summaries: tuple[Summary, ...]
    claims: tuple[ClaimCost, ...]
    limits: tuple[Limit, ...]
    missing: tuple[Missing, ...]


def _numbers(sample: Sample) -> dict[str, float]:
    """A sample's figures side by side, those of Drain's properties too."""
    drain, idle = sample.drain, sample.idle
    found = {"jobs": sample.jobs, "life_us": drain.life_us, "life_commands": drain.life_commands}
    if idle is not None:
        found["idle_beside_heartbeats_per_s"] = idle.idle_sent_per_s - idle.idle_heartbeats_per_s
    for part in (drain, idle, sample.dispatch, sample.many):
        if part is not None:
            found |= {name: value for name, value in msgspec.structs.asdict(part).items() if value is not None}
    return found


def summarise(samples: Sequence[Sample]) -> tuple[Summary, ...]:
    """Each peer's figures over its rounds, peers in the order in which they come."""
    peers: dict[str, dict[str, tuple[float, ...]]] = {}
    for sample in samples:
        values = peers.setdefault(sample.peer, {})
        for name, value in _numbers(sample).items():
            values[name] = (*values.get(name, ()), value)
    return tuple(summary(peer, values) for peer, values in peers.items())
