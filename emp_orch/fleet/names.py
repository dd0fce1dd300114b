"""What a person may call a machine or a program: every form in which emp prints one. Pure.

| form | printed by |
|---|---|
| `MACHINE`, `MACHINE PROGRAM` | status, top, restart |
| `MACHINE/PROGRAM` | doctor, orders, ports |
| `machine-MACHINE`, `machine-MACHINE/PROGRAM` | logs |
| `MACHINE-worker-N`, alone or behind its machine | status, events, jobs: the program `redis-worker-gpuN` |
| `KIND/MACHINE/SUBJECT`, `VERB/MACHINE/SUBJECT` | diff, explain, journal: the key of a drift, of an operation |
| `PROGRAM` | alone where one machine has it |
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec import Struct

from emp_orch.errors import UsageError
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.model.fleet import Fleet, MachineId
from emp_orch.fleet.model.ids import machine_of, worker_id, worker_program
from emp_orch.fleet.plan.operations import Verb, operation_key

# As emp's own logs call a machine.
LOG_PREFIX = "machine-"
# Programs of every machine that no emp.yaml names.
OWN = ("agent", "supervisord")
OFFERED = 3
SHOWN = 10
_BEFORE = frozenset({*map(str, Kind), *(operation_key(verb, MachineId("")) for verb in Verb)})


class UnknownName(UsageError):
    """Nothing of this fleet is called so, or more than one thing is."""


class Name(Struct, frozen=True, kw_only=True):
    """A machine, or one program of it."""

    machine: str
    program: str | None = None

    @property
    def text(self) -> str:
        return self.machine if self.program is None else f"{self.machine}/{self.program}"

    def is_about(self, machine_id: str, subject: str) -> bool:
        """Whether a drift of `subject` on `machine_id` is one of what is named; of a machine all are."""
        if self.machine != machine_id:
            return False
        slot = subject.removeprefix(worker_id_prefix(machine_id))
        worker = worker_program(int(slot)) if slot != subject and slot.isdecimal() else None
        return self.program in (None, subject, worker)

    @property
    def own(self) -> bool:
        """Whether it is a program of emp's own, which starts and ends with its machine."""
        return self.program in OWN


class Names:
    """The names of one fleet. `parts`: those of its control plane, which are told apart from machines."""

    def __init__(
        self, machines: Collection[str], programs_of: Callable[[str], Sequence[str]], *, parts: Collection[str] = ()
    ) -> None:
        self._machines = dict.fromkeys(machines)
        self._programs_of = programs_of
        self._parts = parts

    def find(self, words: Sequence[str]) -> Name:
        """What `words` mean: one name, or a machine and a program of it. Raises UnknownName."""
        text = "/".join(word.strip("/") for word in words)
        if found := self._read(text):
            return found
        # A name that says its machine itself, behind that machine.
        inner = self._read(words[1]) if len(words) == 2 else None
        if inner and self._read(words[0]) in (inner, Name(machine=inner.machine)):
            return inner
        return self._alone(text.removeprefix(LOG_PREFIX))

    def all(self) -> Iterator[str]:
        """Machines, then MACHINE/PROGRAM of each."""
        yield from self._machines
        for machine in self._machines:
            yield from (f"{machine}/{program}" for program in self._programs_of(machine))

    def _read(self, text: str) -> Name | None:
        return next(filter(None, map(self._exact, _readings(text))), None)

    def _exact(self, text: str) -> Name | None:
        if text in self._machines:
            return Name(machine=text)
        machine, separator, rest = text.partition("/")
        if not separator:
            machine = machine_of(text)
            return self._program(machine, text) if machine in self._machines else None
        if machine not in self._machines:
            return None
        # The subject of a machine's own drift is the machine.
        if rest == machine:
            return Name(machine=machine)
        return self._program(machine, rest)

    def _program(self, machine: str, text: str) -> Name | None:
        programs = self._programs_of(machine)
        slot = text.removeprefix(worker_id_prefix(machine))
        if slot != text and slot.isdecimal() and text == worker_id(MachineId(machine), int(slot)):
            text = worker_program(int(slot))
        return Name(machine=machine, program=text) if text in (*programs, *OWN) else None

    def _alone(self, text: str) -> Name:
        """A program without its machine."""
        having = [machine for machine in self._machines if "/" not in text and text in self._programs_of(machine)]
        if len(having) == 1:
            return Name(machine=having[0], program=text)
        if having:
            raise UnknownName(
                f"{len(having)} machines have a program {text}",
                hint=f"say which: {_listed(f'{m}/{text}' for m in having)}",
            )
        if text in self._parts:
            raise UnknownName(
                f"{text} is a part of the control plane, no machine or program of one",
                hint=f"`emp logs {text}` shows what it said, `emp status` how it is",
            )
        raise self._unknown(text)

    def _unknown(self, text: str) -> UnknownName:
        machine, _, program = text.partition("/")
        if program and machine in self._machines:
            near = _near(program, self._programs_of(machine))
            has = _listed(self._programs_of(machine)) or "none"
            return UnknownName(f"machine {machine} has no program {program!r}{near}", hint=f"it has: {has}")
        also = "" if program else ", nor a program"
        shown = machine if machine.replace("-", "").isalnum() else text  # a path is told as it was given
        alone = (name.partition("/")[2] or name for name in self.all())
        known = list(self.all() if program else dict.fromkeys(alone))
        return UnknownName(
            f"there is no machine {shown!r} in this fleet{also}{_near(text, known)}",
            hint="`emp status` shows them all",
        )


def names_of(fleet: Fleet, *, more: Collection[str] = (), parts: Collection[str] = ()) -> Names:
    """The names of `fleet`; `more`: machines that are not in it any more."""
    machines = {str(m.id): m for m in fleet.machines}
    known: dict[str, list[str]] = {}

    def programs_of(machine: str) -> Sequence[str]:
        if machine not in known:
            wanted = machines.get(machine)
            known[machine] = [p.name for p in desired_machine(fleet, wanted).programs] if wanted else []
        return known[machine]

    return Names([*machines, *(m for m in more if m not in machines)], programs_of, parts=parts)


def worker_id_prefix(machine: str) -> str:
    """What stands before the number of the slot in the id of a worker."""
    return worker_id(MachineId(machine), 0).removesuffix("0")


def _readings(text: str) -> Iterator[str]:
    """`text` as it is, without what logs put before it, and without the kind of a drift or the verb of an operation."""
    yield text
    yield text.removeprefix(LOG_PREFIX)
    kind, _, rest = text.partition("/")
    if kind in _BEFORE and rest:
        yield rest


def _near(text: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(text, known, n=OFFERED, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _listed(names: Collection[str] | Iterator[str]) -> str:
    found = list(names)
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
