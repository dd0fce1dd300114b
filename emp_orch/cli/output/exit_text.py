"""Programs that ended, for who waits or looks: each told once, with its last lines set off from what emp says."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from emp_orch.fleet.drift.table import Drift
    from emp_orch.fleet.model.observed import Observed, ProgramEnd
    from emp_orch.store.fleet.generations import Generation

# So many programs are told of in one wait: those of a bad checkout end all alike.
MAX_TOLD = 5
INDENT = "    "


class Ended:
    """The ends that a wait came across. `generation`: what ended before a machine took it over is not its. `shell`:
    the variables of who waits, which no longer reach programs by themselves.
    """

    def __init__(self, generation: Generation, shell: Mapping[str, str]) -> None:
        self._generation = generation.number
        self._fleet = generation.fleet
        self._shell = shell
        self._told: set[tuple[str, str, str]] = set()
        self._alike: set[str] = set()
        self._programs = 0

    def news(self, drifts: Sequence[Drift], observed: Observed) -> list[str]:
        """Lines about programs in trouble that ended and were not told of yet."""
        from emp_orch.fleet.drift.exits import is_well

        lines = []
        for machine_id in dict.fromkeys(d.machine_id for d in drifts):
            seen = observed.machines.get(machine_id)
            if seen is None or seen.report.generation < self._generation:
                continue
            for name, got in seen.report.programs.items():
                if got.last_end is not None and not is_well(got):
                    lines += self._news_of(machine_id, name, got.last_end)
        return lines

    def _news_of(self, machine_id: str, program: str, end: ProgramEnd) -> list[str]:
        from emp_orch.fleet.drift.exits import how

        key = (machine_id, program, how(end))
        if key in self._told:
            return []
        self._told.add(key)
        self._programs += 1
        if self._programs > MAX_TOLD:
            more = "more programs ended: emp diff" if self._programs == MAX_TOLD + 1 else ""
            return [more] if more else []
        return [
            f"{program} on {machine_id} {_sentence(end)}",
            *set_off(end.lines),
            *self._missed(machine_id, program, end),
        ]

    def _missed(self, machine_id: str, program: str, end: ProgramEnd) -> list[str]:
        """What it may have ended for, where its last words name a variable that only we have."""
        from emp_orch.fleet.desired.inherits import missed
        from emp_orch.fleet.desired.machines import desired_machine
        from emp_orch.fleet.model.fleet import ProgramName

        machine = next((m for m in self._fleet.machines if m.id == machine_id), None)
        if machine is None or not machine.traits.shares_host:
            return []
        wanted = desired_machine(self._fleet, machine).program(ProgramName(program))
        names = missed(wanted, end.lines, self._shell) if wanted is not None else ()
        what = "is set here, and does not reach it by itself: it gets it by"
        return [f"{INDENT}{name} {what} inherit: [{name}]" for name in names]


def _sentence(end: ProgramEnd) -> str:
    from emp_orch.fleet.drift.exits import advice, how, lasted

    after = f", {lasted(end.lived_ms)} after its start" if end.lived_ms else ""
    return f"{how(end)}{after}{advice(end)}" + (":" if end.lines else "; it said nothing")


def set_off(lines: Iterable[str], indent: str = INDENT) -> list[str]:
    """Other people's lines, each behind a bar; on a terminal, too long ones go on under themselves."""
    head = f"{indent}| "
    if not sys.stderr.isatty() and not sys.stdout.isatty():
        return [f"{head}{one_line(line)}" for line in lines]
    width = max(40, shutil.get_terminal_size().columns)
    found = []
    for line in lines:
        found += textwrap.wrap(
            one_line(line), width, initial_indent=head, subsequent_indent=f"{head}  ", break_on_hyphens=False
        )
    return found
