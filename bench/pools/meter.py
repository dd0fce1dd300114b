"""What the control plane has used: CPU seconds of its processes, and Redis' own words."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from msgspec import Struct

from emp_orch.lifemark import stat_fields

TICKS = os.sysconf("SC_CLK_TCK")
# Of /proc/PID/stat from its third field on: user and system time.
_USER, _SYSTEM = 11, 12
# Commands that are told by name.
MOST_NAMED = 8


class Spent(Struct, frozen=True, kw_only=True):
    """In a stretch of `wall_s` seconds: CPU seconds by process (`members`: all of them, and what asks), commands of
    Redis by name, those inside scripts included, and jobs that ended. `others_s`: CPU seconds of what is no part of
    this."""

    wall_s: float
    cpu_s: dict[str, float]
    others_s: float
    commands: dict[str, int]
    jobs: int

    @property
    def commands_per_s(self) -> float:
        return sum(self.commands.values()) / self.wall_s

    @property
    def named(self) -> list[tuple[str, int]]:
        return sorted(self.commands.items(), key=lambda pair: -pair[1])[:MOST_NAMED]


class At(Struct, frozen=True, kw_only=True):
    at_s: float
    cpu_s: dict[str, float]
    machine_s: float
    commands: dict[str, int]
    jobs: int


class Memory(Struct, frozen=True, kw_only=True):
    """Of Redis, in bytes, and how many keys; resident memory of the daemons, in MiB."""

    redis_bytes: int
    keys: int
    rss_mib: dict[str, float]


def _machine_s() -> float:
    user, nice, system, _idle, _wait, irq, soft = (int(x) for x in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / TICKS


def _cpu_s(pid: int) -> float:
    fields = stat_fields(pid)
    assert fields is not None, f"process {pid} has ended"
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / TICKS


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


class Meter:
    """`pids`: the daemons by name."""

    def __init__(self, redis_url: str, pids: Mapping[str, int]) -> None:
        self._redis: redis.Redis = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=30)
        self._pids = {**pids, "members": os.getpid()}

    def close(self) -> None:
        self._redis.close()

    def version(self) -> str:
        about = self.info("server")
        return f"{about.get('server_name', 'redis')} {about.get('valkey_version', about['redis_version'])}"

    def info(self, section: str) -> dict[str, Any]:
        return self._redis.info(section)

    def now(self, jobs: int) -> At:
        """`jobs`: how many have ended."""
        stats = self.info("commandstats")
        return At(
            at_s=time.monotonic(),
            cpu_s={name: _cpu_s(pid) for name, pid in self._pids.items()},
            machine_s=_machine_s(),
            commands={name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()},
            jobs=jobs,
        )

    def since(self, before: At, jobs: int) -> Spent:
        now = self.now(jobs)
        used = {name: now.cpu_s[name] - before.cpu_s[name] for name in now.cpu_s}
        commands = {n: more for n, calls in now.commands.items() if (more := calls - before.commands.get(n, 0))}
        return Spent(
            wall_s=now.at_s - before.at_s,
            cpu_s=used,
            others_s=max(0.0, now.machine_s - before.machine_s - sum(used.values())),
            commands=commands,
            jobs=jobs - before.jobs,
        )

    def memory(self) -> Memory:
        return Memory(
            redis_bytes=int(self.info("memory")["used_memory"]),
            keys=int(self._redis.dbsize()),
            rss_mib={name: _rss_mib(pid) for name, pid in self._pids.items()},
        )
