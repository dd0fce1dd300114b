"""Health checks of a machine's programs: one task a program; checks.py says what each asks."""

from __future__ import annotations

import asyncio

from emp_orch.fleet.desired.values import DesiredProgram
from emp_orch.fleet.model.fleet import Health
from emp_orch.fleet.model.observed import ProgramState
from emp_orch.machine.health.checks import Check
from emp_orch.machine.home.programs import Programs

# While a program starts, it is asked this often, so that "started" is told as soon as it is true.
STARTING_INTERVAL_S = 0.1
# A command costs a process each time.
STARTING_COMMAND_S = 0.5


async def watch(programs: Programs, program: DesiredProgram, health: Health, ask: Check) -> None:
    """Keep `program`'s health up to date by `ask` for as long as this task runs."""
    while True:
        await programs.wait(lambda: _running(programs, program))
        await _watch_one_life(programs, program, health, ask)


def _running(programs: Programs, program: DesiredProgram) -> bool:
    report = programs.get(program.name)
    return report is not None and report.state in (ProgramState.RUNNING, ProgramState.STARTING) and report.pid != 0


async def _watch_one_life(programs: Programs, program: DesiredProgram, health: Health, ask: Check) -> None:
    """Probe until the process is another one or gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    report = programs.get(program.name)
    pid = report.pid if report else 0
    failures = 0
    passed = report is not None and report.healthy is not None and not report.never_healthy
    while (now := programs.get(program.name)) is not None and now.pid == pid and _running(programs, program):
        error = await ask()
        failures = failures + 1 if error else 0
        passed = passed or not error
        still_starting = now.healthy is None and loop.time() - began < health.startup_s
        if error and still_starting:
            await programs.set_health(program.name, None, error)
        elif not error:
            await programs.set_health(program.name, True, "")
        elif failures >= health.failures:
            await programs.set_health(program.name, False, error, never_healthy=not passed)
        soon = STARTING_COMMAND_S if health.command else STARTING_INTERVAL_S
        await asyncio.sleep(min(soon, health.interval_s) if still_starting else health.interval_s)
