"""What a shell offers after Tab: read from the last generation on disk, so that it is quick and needs no Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

MAX_BYTES = 16 * 1024 * 1024
OFFERED = 9


class _Machine(msgspec.Struct):
    id: str


class _Fleet(msgspec.Struct):
    machines: list[_Machine]
    pools: dict[str, msgspec.Raw] = {}


class _Generation(msgspec.Struct):
    """As much of a stored generation as a shell asks for: store.generations would bring the Redis client with it."""

    number: int
    fleet: _Fleet


def machine_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The machines of the generation last applied here."""
    return [i for i in _kept(ctx)[1] if i.startswith(incomplete)]


def pool_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The pools of the generation last applied here."""
    try:
        kept = msgspec.json.decode(_text(ctx), type=_Generation)
    except (OSError, ValueError, RecursionError):
        return []
    return sorted(name for name in kept.fleet.pools if name.startswith(incomplete))


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Machines; and of the one that is written out, or of the only one, MACHINE/PROGRAM."""
    machines = _kept(ctx)[1]
    wanted = incomplete.partition("/")[0]
    found = [i for i in machines if i.startswith(incomplete)]
    if wanted not in machines and found != machines[:1]:
        return found
    machine = wanted if wanted in machines else machines[0]
    return [*found, *(n for p in _programs(ctx, machine) if (n := f"{machine}/{p}").startswith(incomplete))]


def programs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The programs of the machine that was named before."""
    return [p for p in _programs(ctx, str(ctx.params.get("machine") or "")) if p.startswith(incomplete)]


def log_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The control plane's parts, then as `names`."""
    from emp_orch.control.logs.files import CONTROL

    return [*(part for part in CONTROL if part.startswith(incomplete)), *names(ctx, param, incomplete)]


def generation_numbers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The generations before the last one, nearest first."""
    current = _kept(ctx)[0]
    return [t for n in range(current - 1, max(0, current - 1 - OFFERED), -1) if (t := str(n)).startswith(incomplete)]


def _kept(ctx: click.Context) -> tuple[int, list[str]]:
    """Number and machines of the generation on disk; nothing when it cannot be read: a Tab is no place for errors."""
    try:
        kept = msgspec.json.decode(_text(ctx), type=_Generation)
    except (OSError, ValueError, RecursionError):
        return 0, []
    return kept.number, [m.id for m in kept.fleet.machines]


def _programs(ctx: click.Context, machine: str) -> list[str]:
    """As `_kept`, of one machine."""
    from emp_orch.fleet.desired.machines import desired_machine
    from emp_orch.fleet.model.fleet import Fleet

    whole: Any = msgspec.defstruct("Whole", [("fleet", Fleet)])
    try:
        fleet = msgspec.json.decode(_text(ctx), type=whole).fleet
        found = next((m for m in fleet.machines if m.id == machine), None)
        return [p.name for p in desired_machine(fleet, found).programs] if found else []
    except (OSError, ValueError, LookupError, RecursionError):
        return []


def _text(ctx: click.Context) -> bytes:
    from emp_orch.layout import Layout

    # While a shell asks, click calls no command, so nobody has worked out the folder yet.
    folder = ctx.find_root().params.get("directory") or Path()
    path = Layout(Path(folder).absolute()).generation
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("too large to be read for a Tab")
    return path.read_bytes()
