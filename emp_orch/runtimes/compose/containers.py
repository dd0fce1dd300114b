"""What a Docker Engine tells of a container: as values, and its times."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct


class Container(Struct, frozen=True, kw_only=True):
    """One of our containers. `state` is the engine's word: running, exited, created, paused, restarting …; `networks`
    are those that it is in, by name, `mounts` what it sees, by its own paths.
    """

    id: str
    state: str
    status: str
    labels: dict[str, str]
    networks: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


class Run(Struct, frozen=True, kw_only=True):
    """A container's present or last run. Times are as the engine writes them; `pid` is the host's, 0 without a run."""

    status: str
    pid: int
    started_at: str
    finished_at: str
    exit_code: int
    restarts: int
    error: str


class Life(Struct, frozen=True, kw_only=True):
    """`state` as Container's. Of its present or last run: when it began and ended, as the engine writes it (RFC 3339),
    year 1 for never. `exit_code` is that of the last run once it has ended, `restarts` how often the engine started it
    by itself, `memory_limit` in bytes, 0 without one.
    """

    state: str
    started_at: str
    finished_at: str
    exit_code: int
    error: str
    oom_killed: bool
    restarts: int
    memory_limit: int
    image: str


class Figures(Struct, frozen=True, kw_only=True):
    """What a container has used: processor time since its start, memory now without what the kernel could drop, and the
    most that it may have. `at_s` is when, by the engine's clock.
    """

    at_s: float
    cpu_s: float
    memory: int
    limit: int


def nanoseconds(text: str) -> int:
    """RFC 3339, as the engine writes it, to nanoseconds since the epoch; 0 for what is none."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    try:
        at = datetime.fromisoformat(head).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(at.timestamp()) * 10**9 + (int(f"{fraction:0<9}"[:9]) if fraction.isdecimal() else 0)


def engine_time(ns: int) -> str:
    """A time as the engine takes it."""
    return f"{ns // 10**9}.{ns % 10**9:09d}"
