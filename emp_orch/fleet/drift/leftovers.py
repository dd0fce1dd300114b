"""What a stop ended beyond the programs themselves: processes that they had left behind. In words."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

# Programs that are named, and processes of each.
MAX_PROGRAMS = 5
MAX_NAMED = 3


class Process(Struct, frozen=True, kw_only=True):
    name: str
    pid: int


class Left(Struct, frozen=True, kw_only=True):
    """`program` of `machine` had left `count` processes behind; `processes` are the first of them. `program` is empty
    where nobody knows whose they were, `machine` for the control plane.
    """

    machine: str
    program: str
    count: int
    processes: tuple[Process, ...]


def told(found: Sequence[Left], *, machines: bool = False) -> str:
    """`ended with it: python3 (pid 123), sh (pid 124), which comfyui-gpu0 had left behind`; empty without any.

    `machines`: say on which, too.
    """
    said = [_one(left, machines) for left in found[:MAX_PROGRAMS]]
    if rest := found[MAX_PROGRAMS:]:
        said.append(f"{sum(left.count for left in rest)} more of {len(rest)} others")
    return f"ended with it: {'; '.join(said)}" if said else ""


def _one(left: Left, machines: bool) -> str:
    named = left.processes[:MAX_NAMED]
    words = ", ".join(f"{p.name} (pid {p.pid})" for p in named)
    more = left.count - len(named)
    where = f" on {left.machine or 'the control plane'}" if machines else ""
    who = left.program or "a program that is gone"
    return f"{words}{f' and {more} more' if more else ''}, which {who}{where} had left behind"
