"""`emp start --foreground`: the fleet's main process for a service manager."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from emp_orch.control.apply.down import bring_down, longest_s
from emp_orch.control.apply.starting import start as bring_up
from emp_orch.control.host import generation as generations
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.plane.foreground import End, ServiceManager
from emp_orch.control.plane.foreground import until_asked as stay_beside
from emp_orch.errors import EmpError
from emp_orch.layout import Layout


def run_in_foreground(directory: Path) -> None:
    """Bring the fleet up, stay, and bring it down when told. Raises EmpError when its control plane ended by itself."""
    asyncio.run(_run_in_foreground(Layout(directory), ServiceManager.taken_from(os.environ)))


async def _run_in_foreground(layout: Layout, manager: ServiceManager) -> None:
    asked = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, asked.set)
    if await _brought_up(layout, manager, asked):
        match await stay_beside(plane_of(layout), asked):
            case End.STOPPED:
                click.echo("the fleet was brought down")
                return
            case End.GONE:
                raise EmpError("the control plane ended by itself", hint=f"see {layout.log('control')}; emp start")
    await _bring_down(layout, manager)


async def _brought_up(layout: Layout, manager: ServiceManager, asked: asyncio.Event) -> bool:
    """Whether it is up; False when we are to end before that. Raises as control/apply/starting."""
    waiting = asyncio.create_task(asked.wait())
    starting = asyncio.create_task(bring_up(layout, os.environ))
    await asyncio.wait({waiting, starting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    started = starting.result()
    fleet = started.proposal.settings.fleet
    said = f"{fleet} {'runs already' if started.ran else 'is up'}: generation {started.generation.number}"
    click.echo(said)
    manager.tell(READY=1, STATUS=said)
    return True


async def _bring_down(layout: Layout, manager: ServiceManager) -> None:
    manager.tell(STOPPING=1, STATUS="stopping the fleet")
    generation = generations.kept(layout)
    if generation is not None:  # workers may by now be given more time than when the unit was written
        manager.tell(EXTEND_TIMEOUT_USEC=longest_s(generation.fleet) * 1_000_000)
    stopped = await bring_down(layout, click.echo, boxes=False)  # a host that starts anew has them still
    click.echo(f"the fleet is down ({', '.join(stopped) or 'no machine ran'})")
