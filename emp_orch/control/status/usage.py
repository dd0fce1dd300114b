"""What machines use: processor and memory of each, and of each of its programs.

Two looks make one answer: processor time is counted from the start of a process, so what is used now is what came to
it between them. A machine that cannot be looked at says why, and keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs
from redis.exceptions import RedisError

from emp_orch import procuse
from emp_orch import settings as settings_files
from emp_orch.control.limits import REDIS_DEADLINE_S
from emp_orch.control.status.location import machines, unknown
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.model.fleet import Machine, MachineId
from emp_orch.fleet.model.hosts import host_of
from emp_orch.fleet.model.observed import InstanceState, SeenMachine
from emp_orch.images import PYTHON
from emp_orch.layout import Layout
from emp_orch.procuse import Measured
from emp_orch.runtimes.process.runtime import ProcessRuntime
from emp_orch.settings import Settings
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import read_reports

if TYPE_CHECKING:
    from emp_orch.runtimes.compose.runtime import ComposeRuntime

HERE = "this host"


class Look(Struct, frozen=True, kw_only=True):
    """One look at one machine. `where` is this host, a Docker host, or empty. `why` says what could not be read;
    `away`: because its Docker host does not answer, `own_box`: because it joined by itself.

    `at_s` and `cpu_s` are of the machine as a whole, by the clock of whoever measured it; `memory` None: unknown.
    """

    machine_id: MachineId
    where: str
    at_s: float = 0.0
    cpu_s: float | None = None
    memory: int | None = None
    limit: int | None = None
    measured: Measured | None = None
    why: str = ""
    away: bool = False
    own_box: bool = False


class ProgramUse(Struct, frozen=True, kw_only=True):
    """`cpu`: percent of one core, None where there is nothing yet to compare with. `memory` in bytes."""

    name: str
    pid: int
    processes: int
    cpu: float | None
    memory: int


class MachineUse(Struct, frozen=True, kw_only=True):
    """Fields are as those of Look and ProgramUse."""

    machine_id: MachineId
    where: str
    cpu: float | None
    memory: int | None
    limit: int | None
    programs: tuple[ProgramUse, ...]
    why: str = ""
    away: bool = False
    own_box: bool = False


class Watch:
    """Looks at the machines of a fleet again and again; `only`: at that one. Raises UsageError when there is none."""

    def __init__(self, layout: Layout, only: str | None = None) -> None:
        self._layout = layout
        self._settings = settings_files.load(layout)
        self._containers = _containers(layout, self._settings)
        self._only = only
        self._before: dict[MachineId, Look] = {}
        if only is not None and only not in (known := self._known(machines(layout))):
            raise unknown(only, known)

    def _known(self, named: Mapping[MachineId, Machine]) -> dict[MachineId, Machine | None]:
        """`named`, the machines of the last generation; None are those that still run here, though they left it."""
        return {**named, **{MachineId(p.name): None for p in self._folders() if p.name not in named}}

    def _folders(self) -> list[Path]:
        try:
            return [p for p in self._layout.machines.iterdir() if p.is_dir()]
        except OSError:
            return []

    async def look(self) -> list[MachineUse]:
        """What each machine used since the look before."""
        named = machines(self._layout)
        wanted = {i: machine for i, machine in self._known(named).items() if self._only in (None, i)}
        here = [i for i, m in wanted.items() if m is None or m.traits.shares_host]
        boxes = [i for i, m in wanted.items() if m is not None and not m.traits.reached]
        inside = [self._in_container(m) for m in wanted.values() if m is not None and m.traits.in_container]
        found = await asyncio.gather(self._on_host(here, named), self._boxes(boxes), *inside)
        now = {look.machine_id: look for looks in found for look in looks}
        uses = [use_between(self._before.get(i), now[i]) for i in wanted if i in now]
        self._before = now
        return uses

    async def _on_host(self, wanted: list[MachineId], named: Mapping[MachineId, Machine]) -> list[Look]:
        """Those that left the fleet are shown only while they run."""
        if not wanted:
            return []
        instances = await ProcessRuntime(self._layout, self._settings).instances()
        table = await asyncio.to_thread(procuse.processes)
        looks = []
        for machine_id in wanted:
            instance = instances.get(machine_id)
            if instance is not None and instance.state is InstanceState.RUNNING:
                measured = await asyncio.to_thread(procuse.measure, self._layout.machine(machine_id), table)
                looks.append(_of_processes(machine_id, measured))
            elif machine_id in named or machine_id == self._only:
                detail = instance.detail if instance and instance.detail else "it was never started"
                looks.append(Look(machine_id=machine_id, where=HERE, why=f"does not run: {detail}"))
        return looks

    async def _in_container(self, machine: Machine) -> list[Look]:
        machine_id, where = machine.id, host_of(machine)
        try:
            found = await self._containers.container(machine_id) if self._containers else None
            if found is None:
                return [Look(machine_id=machine_id, where=where, why="has no container that runs")]
            engine, container_id = found
            figures, (measured, why) = await asyncio.gather(
                asyncio.to_thread(engine.figures, container_id),
                asyncio.to_thread(_measured, lambda: engine.output(container_id, _ASK)),
            )
        except EmpError as e:
            return [Look(machine_id=machine_id, where=where, why=e.message, away=isinstance(e, Unreachable))]
        return [
            Look(
                machine_id=machine_id,
                where=engine.host.name,
                at_s=figures.at_s,
                cpu_s=figures.cpu_s,
                memory=figures.memory,
                limit=figures.limit,
                measured=measured,
                why=why,
            )
        ]

    async def _boxes(self, wanted: list[MachineId]) -> list[Look]:
        """Of a box of its own, emp knows what it reports, which is no figure of this kind."""
        if not wanted:
            return []
        told = await _reports(self._settings)
        return [Look(machine_id=i, where="", why=_report(told, i), own_box=True) for i in wanted]


def _containers(layout: Layout, settings: Settings) -> ComposeRuntime | None:
    if not settings.hosts:
        return None
    from emp_orch.runtimes.compose.runtime import ComposeRuntime  # the Docker SDK takes its time to import

    return ComposeRuntime(layout, settings)


# In the container, by its own emp.
_ASK = (PYTHON, "-I", "-m", "emp_orch.procuse")


def _measured(ask: Callable[[], bytes]) -> tuple[Measured | None, str]:
    """What a container says of its programs; else why it does not: its image may hold an emp that cannot."""
    try:
        return msgspec.json.decode(ask(), type=Measured), ""
    except EmpError as e:
        return None, f"its programs cannot be told apart: {e.message}"
    except msgspec.MsgspecError as e:
        return None, f"its programs cannot be told apart: the answer makes no sense ({e})"


def _of_processes(machine_id: MachineId, measured: Measured) -> Look:
    programs = measured.programs.values()
    return Look(
        machine_id=machine_id,
        where=HERE,
        at_s=measured.at_s,
        cpu_s=sum(p.cpu_s for p in programs),
        memory=sum(p.memory for p in programs),
        limit=procuse.host_memory(),
        measured=measured,
    )


async def _reports(settings: Settings) -> dict[MachineId, SeenMachine] | str:
    """The reports of all machines by id, with their age for `seen_ms`; or why there are none."""
    try:
        async with (
            asyncio.timeout(REDIS_DEADLINE_S),
            client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r,
        ):
            found = await read_reports(r, Keys(settings.prefix))
    except EmpError as e:
        return e.message
    except (RedisError, OSError, TimeoutError) as e:
        return str(e) or f"Redis did not answer within {REDIS_DEADLINE_S:g} s"
    return {i: structs.replace(s, seen_ms=max(0, found.now_ms - s.seen_ms)) for i, s in found.machines.items()}


def _report(told: dict[MachineId, SeenMachine] | str, machine_id: MachineId) -> str:
    box = "a box of its own: emp cannot see what it uses"
    if isinstance(told, str):
        return f"{box}; nor its report: {told}"
    seen = told.get(machine_id)
    if seen is None:
        return f"{box}; it never reported"
    report = seen.report
    up = sum(p.pid > 0 for p in report.programs.values())
    return f"{box}; {seen.seen_ms / 1000:.0f} s ago it reported {report.status}, {up} programs with a process"


def use_between(before: Look | None, now: Look) -> MachineUse:
    """What a machine used between two looks; nothing is said of its processor when there was no look before."""
    programs = now.measured.programs if now.measured else {}
    earlier = before.measured if before else None
    return MachineUse(
        machine_id=now.machine_id,
        where=now.where,
        cpu=_machine_share(before, now),
        memory=now.memory,
        limit=now.limit,
        programs=tuple(
            ProgramUse(
                name=name,
                pid=used.pid,
                processes=used.processes,
                cpu=_program_share(earlier, now.measured, name) if now.measured else None,
                memory=used.memory,
            )
            for name, used in programs.items()
        ),
        why=now.why,
        away=now.away,
        own_box=now.own_box,
    )


def _machine_share(before: Look | None, now: Look) -> float | None:
    if now.cpu_s is None or before is None or before.cpu_s is None:
        return None
    if now.where == HERE and before.measured and now.measured:
        shares = [_program_share(before.measured, now.measured, name) for name in now.measured.programs]
        return sum(s for s in shares if s is not None)
    return _share(now.cpu_s - before.cpu_s, now.at_s - before.at_s)


def _program_share(before: Measured | None, now: Measured, name: str) -> float | None:
    if before is None:
        return None
    used, was = now.programs[name], before.programs.get(name)
    # Another process than before has begun since: all that it used is new.
    earlier_s = was.cpu_s if was is not None and was.pid == used.pid else 0.0
    return _share(used.cpu_s - earlier_s, now.at_s - before.at_s)


def _share(used_s: float, passed_s: float) -> float | None:
    """Percent of one core. Never below 0: a process that ended takes its time with it where nobody waited for it."""
    return None if passed_s <= 0 else max(0.0, used_s / passed_s * 100)


def by_use(uses: list[MachineUse], key: str = "cpu") -> list[MachineUse]:
    """Those that use most first, machines and programs; what is unknown comes last, and else the name decides."""

    def order(use: MachineUse | ProgramUse) -> tuple[bool, float, str]:
        name = use.machine_id if isinstance(use, MachineUse) else use.name
        amount = None if key == "name" else use.cpu if key == "cpu" else use.memory
        return (amount is None, -(amount or 0), name)

    ordered = [structs.replace(u, programs=tuple(sorted(u.programs, key=order))) for u in uses]
    return sorted(ordered, key=order)
