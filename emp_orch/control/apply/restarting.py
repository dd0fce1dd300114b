"""A restart that a person asks for: put before the reconciler, and followed until what was restarted is up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from emp_orch.control.apply.asking import asked
from emp_orch.control.host.leftovers import LeftBehind
from emp_orch.control.status.inspect import Difference, difference
from emp_orch.errors import EmpError, WaitTimeout
from emp_orch.fleet.drift.kinds import BESIDE, Drift, Kind
from emp_orch.fleet.drift.leftovers import Left
from emp_orch.fleet.names import Name
from emp_orch.layout import Layout
from emp_orch.store.fleet import requests

LOOK_S = 0.2
# Programs of one machine that are named in one line.
NAMED = 3
# supervisord, or the reconciler, has seen enough of it.
_GIVEN_UP = (Kind.PROGRAM_FATAL, Kind.PROGRAM_FLAPPING)


class Answer(Struct, frozen=True, kw_only=True):
    """The reconciler's. `asked_ms`: when it was asked, by Redis' clock. `left`: what was ended beyond programs."""

    asked_ms: int
    left: tuple[Left, ...]


async def restart(layout: Layout, name: Name, within_s: float) -> Answer:
    """Restart a machine or one program, and wait until nothing of it differs from what is desired.

    Raises EmpError as soon as it turns out not to stay up, WaitTimeout after `within_s`; both say why.
    """
    answer: Answer | None = None
    left: Sequence[Drift] = ()
    try:
        async with asyncio.timeout(within_s):
            answer = await _ask(layout, name)
            while left := _of(name, found := await difference(layout)):
                if all(_has_failed(d, found, answer.asked_ms) for d in left):
                    raise EmpError(
                        f"{_called(name)} was restarted, and does not stay up: {_why(left)}", hint=_hint(name, left)
                    )
                await asyncio.sleep(LOOK_S)
            return answer
    except TimeoutError:
        if answer is None:
            raise WaitTimeout(
                f"not done within {within_s:g} s", hint="is the reconciler up? see `emp diff`, `emp logs reconcile`"
            ) from None
        raise WaitTimeout(
            f"{_called(name)} was restarted, and is not up after {within_s:g} s: {_why(left)}", hint=_hint(name, left)
        ) from None


async def _ask(layout: Layout, name: Name) -> Answer:
    """What the reconciler says once it is done. Raises EmpError where that is no."""
    verb = requests.Verb.RESTART_PROGRAM if name.program else requests.Verb.RESTART_MACHINE
    behind = LeftBehind(layout)
    asked_ms = await asked(layout, requests.Request(verb=verb, machine_id=name.machine, program=name.program, by="cli"))
    return Answer(asked_ms=asked_ms, left=behind.found(name.machine, name.program))


# These stand for as long as what made them does, whatever is restarted.
_NOT_BY_THIS = BESIDE - {Kind.CONNECTOR_BROKEN}


def _of(name: Name, found: Difference) -> list[Drift]:
    """What differs of it, and a restart may put right."""
    mine = [d.drift for d in found.drift if d.drift.machine_id == name.machine and d.drift.kind not in _NOT_BY_THIS]
    return [d for d in mine if name.program is None or d.program in (None, name.program)]


def _has_failed(drift: Drift, found: Difference, asked_ms: int) -> bool:
    """Whether a program was given up after it was restarted: what is said of its former life counts for nothing."""
    machine = found.observed.machines.get(drift.machine_id)
    program = machine.report.programs.get(drift.program) if machine and drift.program else None
    end = program.last_end if program else None
    return drift.kind in _GIVEN_UP and end is not None and end.at_ms > asked_ms


def _called(name: Name) -> str:
    return f"{name.machine} {name.program}" if name.program else name.machine


def _why(left: Sequence[Drift]) -> str:
    """What differs, for people."""
    said = [d.cause if len(left) == 1 else f"{d.subject}: {d.cause}" for d in left[:NAMED]]
    return (
        "; ".join([*said, *([f"and {len(left) - NAMED} more"] if len(left) > NAMED else [])]) or "nothing was seen yet"
    )


def _hint(name: Name, left: Sequence[Drift]) -> str:
    program = name.program or next((d.program for d in left if d.program), None)
    words = f"{name.machine} {program}" if program else name.machine
    return f"`emp logs {words}` shows what it said; the reconciler goes on trying"
