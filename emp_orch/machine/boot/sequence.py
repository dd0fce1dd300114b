"""The start-up sequence: phases in order, every program awaited until it does its work.

It is the same whether a machine boots, an agent comes back, or a new configuration was loaded: what is up stays
untouched, what is not is started, and each event is announced once a boot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.startup import Phase, has_failed, is_up, side_by_side
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.drift.exits import why_gone
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineStatus, ProgramState
from emp_orch.machine.home.programs import Programs
from emp_orch.runtimes.process.supervisor import Supervisor

log = logging.getLogger("agent")

# announce(key, type, data): publishes once a boot for each key
Announce = Callable[..., None]
_STARTABLE = frozenset({ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL, ProgramState.UNKNOWN})


class Sequence:
    """Brings one machine's programs up. `set_status(status, error)` tells how far it is.

    `first` says whether this boot has not been ready yet: a machine that was is only being configured. `held(program)`
    says whether a command stopped it: it is left alone, and what comes after it waits; whoever changes that wakes
    those who wait (Programs.touch). `before_workers()` is awaited before a worker is started.
    """

    def __init__(
        self,
        machine: DesiredMachine,
        programs: Programs,
        supervisor: Supervisor,
        *,
        first: bool,
        held: Callable[[ProgramName], bool],
        announce: Announce,
        set_status: Callable[[MachineStatus, str], None],
        before_workers: Callable[[], Awaitable[None]],
    ) -> None:
        self._machine = machine
        self._programs = programs
        self._supervisor = supervisor
        self._begun = MachineStatus.STARTING if first else MachineStatus.CONFIGURING
        self._held = held
        self._announce = announce
        self._set_status = set_status
        self._before_workers = before_workers
        self._by_name = {p.name: p for p in machine.programs}
        self._settled: set[ProgramName] = set()
        self._refused: dict[ProgramName, str] = {}

    async def run(self) -> None:
        """To the end: every program up and the machine ready. Waits as long as that takes."""
        fresh = not all(self._up(p) or self._held(p.name) for p in self._machine.programs)
        if fresh:
            self._set_status(self._begun, "")
            self._announce("machine_startup:starting", "machine_startup", phase="starting")
        async with asyncio.TaskGroup() as group:
            for together in side_by_side(self._machine):
                for phase in together:
                    self._begin(phase, group)
                begun = [p.name for phase in together for p in phase.programs]
                await self._programs.wait(partial(self._settled.issuperset, begun))
            self._announce("machine_startup:configuring", "machine_startup", phase="configuring")
            if fresh:
                self._set_status(MachineStatus.CONFIGURING, self._trouble())
        self._set_status(MachineStatus.READY, "")
        self._announce("machine_startup:ready", "machine_startup", phase="ready")
        self._announce("startup_complete", "startup_complete", num_gpus=self._machine.num_gpus)

    def _begin(self, phase: Phase, group: asyncio.TaskGroup) -> None:
        self._announce(f"step:{phase.step}", "startup_step", step=phase.step)
        if phase.step == "shared_setup_starting":
            self._announce("started:supervisord", "service_started", service="supervisord")
        for program in phase.programs:
            group.create_task(self._bring_up(program), name=f"start {program.name}")

    async def _bring_up(self, program: DesiredProgram) -> None:
        """Start `program` when what it comes after is up; then wait until it is, however often it fails, or is held."""
        await self._wait_for_others(program)
        if program.kind is ProgramKind.WORKER and not self._up(program):
            await self._before_workers()
        if self._held(program.name):
            await self._settle(program)
            return
        report = self._programs.get(program.name)
        if not self._up(program) and (report is None or report.state in _STARTABLE):
            await self._start(program)
        await self._programs.wait(lambda: self._up(program) or self._failed(program) or self._held(program.name))
        if not self._up(program) and not self._held(program.name):
            await self._settle(program)
            report = self._programs.get(program.name)
            why = self._refused.get(program.name) or (report.detail or why_gone(report) if report else "") or "it exits"
            state = report.state if report else "absent"
            self._announce(None, "service_failed", service=program.name, state=state, error=why)
            log.warning("%s is %s: %s", program.name, state, why)
            self._set_status(MachineStatus.CONFIGURING, self._trouble())
            await self._programs.wait(lambda: self._up(program) or self._held(program.name))
            self._set_status(MachineStatus.CONFIGURING, self._trouble())
        self._refused.pop(program.name, None)
        if self._up(program):
            self._announce(f"started:{program.name}", "service_started", service=program.name)
        await self._settle(program)

    async def _start(self, program: DesiredProgram) -> None:
        """A start that supervisord refuses is a failure of the program, and shown as its trouble."""
        try:
            await self._supervisor.start(program.name)
            if self._held(program.name):  # the command came while we asked
                await self._supervisor.stop(program.name)
        except EmpError as e:
            self._refused[program.name] = e.message

    async def _wait_for_others(self, program: DesiredProgram) -> None:
        before = [self._by_name[name] for name in program.after if name in self._by_name]

        def all_up() -> bool:
            return all(self._up(p) for p in before)

        def is_over() -> bool:
            return all_up() or self._held(program.name)

        await self._programs.wait(lambda: is_over() or any(p.name in self._settled and not self._up(p) for p in before))
        if not is_over():
            await self._settle(program)
            await self._programs.wait(is_over)

    def _up(self, program: DesiredProgram) -> bool:
        return is_up(program, self._programs.get(program.name))

    def _failed(self, program: DesiredProgram) -> bool:
        return program.name in self._refused or has_failed(program, self._programs.get(program.name))

    def _trouble(self) -> str:
        """What keeps the machine from being ready, for people; empty while it is only under way."""
        down = [n for n in self._settled if not self._up(self._by_name[n]) and not self._held(n)]
        return f"not up: {', '.join(sorted(down))}" if down else ""

    async def _settle(self, program: DesiredProgram) -> None:
        self._settled.add(program.name)
        await self._programs.touch()


def announced_by(programs: Iterable[str]) -> set[str]:
    """The announcement keys of programs that were replaced: they will be announced again."""
    return {f"started:{name}" for name in programs}
