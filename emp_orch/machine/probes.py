"""Health checks of a machine's programs: one task a program, an HTTP GET on its port."""

from __future__ import annotations

import asyncio

import aiohttp

from emp_orch.fleet.desired import DesiredProgram
from emp_orch.fleet.model import Health
from emp_orch.fleet.observed import ProgramState
from emp_orch.machine.programs import Programs

# While a program starts, it is asked this often, so that "started" is told as soon as it is true.
STARTING_INTERVAL_S = 0.1


async def probe_once(session: aiohttp.ClientSession, url: str, timeout_s: float) -> str:
    """Ask once; returns "" when the answer is a 2xx or 3xx, else what is wrong, in one line."""
    try:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
            return "" if answer.status < 400 else f"{url} answered {answer.status}"
    except TimeoutError:
        return f"{url} did not answer within {timeout_s:g} s"
    except (aiohttp.ClientError, OSError) as e:
        return f"{url}: {e}"


async def watch(programs: Programs, program: DesiredProgram, health: Health, session: aiohttp.ClientSession) -> None:
    """Keep `program`'s health up to date for as long as this task runs."""
    url = f"http://127.0.0.1:{program.port}{health.http}"
    while True:
        await programs.wait(lambda: _running(programs, program))
        await _watch_one_life(programs, program, health, session, url)


def _running(programs: Programs, program: DesiredProgram) -> bool:
    report = programs.get(program.name)
    return report is not None and report.state in (ProgramState.RUNNING, ProgramState.STARTING) and report.pid != 0


async def _watch_one_life(
    programs: Programs, program: DesiredProgram, health: Health, session: aiohttp.ClientSession, url: str
) -> None:
    """Probe until the process is another one or gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    report = programs.get(program.name)
    pid = report.pid if report else 0
    failures = 0
    passed = report is not None and report.healthy is not None and not report.never_healthy
    while (now := programs.get(program.name)) is not None and now.pid == pid and _running(programs, program):
        error = await probe_once(session, url, health.timeout_s)
        failures = failures + 1 if error else 0
        passed = passed or not error
        still_starting = now.healthy is None and loop.time() - began < health.startup_s
        if error and still_starting:
            await programs.set_health(program.name, None, error)
        elif not error:
            await programs.set_health(program.name, True, "")
        elif failures >= health.failures:
            await programs.set_health(program.name, False, error, never_healthy=not passed)
        await asyncio.sleep(min(STARTING_INTERVAL_S, health.interval_s) if still_starting else health.interval_s)
