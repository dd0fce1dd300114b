"""What a shell offers after Tab: read from the last generation on disk, so that it is quick and needs no Redis."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

MAX_BYTES = 16 * 1024 * 1024
OFFERED = 9


class _Machine(msgspec.Struct):
    id: str


class _Fleet(msgspec.Struct):
    machines: list[_Machine]


class _Generation(msgspec.Struct):
    """As much of a stored generation as a shell asks for: store.generations would bring the Redis client with it."""

    number: int
    fleet: _Fleet


def machine_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The machines of the generation last applied here."""
    return [i for i in _kept(ctx)[1] if i.startswith(incomplete)]


def generation_numbers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The generations before the last one, nearest first."""
    current = _kept(ctx)[0]
    return [t for n in range(current - 1, max(0, current - 1 - OFFERED), -1) if (t := str(n)).startswith(incomplete)]


def _kept(ctx: click.Context) -> tuple[int, list[str]]:
    """Number and machines of the generation on disk; nothing when it cannot be read: a Tab is no place for errors."""
    from emp_orch.layout import Layout

    # While a shell asks, click calls no command, so nobody has worked out the folder yet.
    folder = ctx.find_root().params.get("directory") or Path()
    path = Layout(Path(folder).absolute()).generation
    try:
        if path.stat().st_size > MAX_BYTES:
            return 0, []
        kept = msgspec.json.decode(path.read_bytes(), type=_Generation)
    except (OSError, ValueError, RecursionError):
        return 0, []
    return kept.number, [m.id for m in kept.fleet.machines]
