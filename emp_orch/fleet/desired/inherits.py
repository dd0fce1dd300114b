"""What programs take over from the shell of an apply, by name; and what a new generation changes in that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from emp_orch import environments
from emp_orch.fleet.model.fleet import Fleet, ProgramName, SecretRef

if TYPE_CHECKING:
    from emp_orch.fleet.desired.values import DesiredProgram


# As a program names one in its last words: KeyError: 'HF_TOKEN'.
_NAME = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_A_SHELLS_OWN = frozenset({"BASH_ENV", "MACHINE_ID", "NUM_GPUS", "REDIS_URL", "HUB_REDIS_URL"})


class InheritChange(Struct, frozen=True, kw_only=True):
    """Programs that begin to inherit the names `more`, and no longer inherit `less`."""

    programs: tuple[ProgramName, ...]
    more: tuple[str, ...]
    less: tuple[str, ...]


def names_of(program: DesiredProgram) -> frozenset[str]:
    return frozenset(n for n, v in program.env.items() if isinstance(v, SecretRef) and v.optional)


def inherit_changes(
    before: Mapping[ProgramName, DesiredProgram], after: Mapping[ProgramName, DesiredProgram]
) -> tuple[InheritChange, ...]:
    """What changes for programs that are in both, those alike together."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[ProgramName]] = {}
    for name, program in after.items():
        if name in before:
            old, new = names_of(before[name]), names_of(program)
            if old != new:
                found.setdefault((tuple(sorted(new - old)), tuple(sorted(old - new))), []).append(name)
    return tuple(InheritChange(programs=tuple(p), more=more, less=less) for (more, less), p in found.items())


def missed(program: DesiredProgram, said: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of the shell `environ` that a program of a process machine names in its last words, and that
    nothing gives it.
    """
    words = {word for line in said for word in _NAME.findall(line)}
    strange = (n for n in words & environ.keys() if n not in program.env and n not in _A_SHELLS_OWN)
    return tuple(sorted(n for n in strange if not environments.passes(environments.MACHINE, n)))


def inherited_keys(fleet: Fleet) -> frozenset[str]:
    """The keys of the values that programs inherit."""
    names = {n for s in fleet.services.values() for n in s.inherit} | {n for m in fleet.machines for n in m.inherit}
    return frozenset(SecretRef(source="env", name=n).key for n in names)


def runs_processes(fleet: Fleet) -> bool:
    """Whether machines of the fleet are processes of the host where it is applied."""
    return any(machine.traits.shares_host for machine in fleet.machines)
