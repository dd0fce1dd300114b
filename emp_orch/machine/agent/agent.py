"""The machine agent: reports, runs the start-up sequence, carries out commands. It decides nothing about the fleet.

It is a supervisord event listener, so it hears of a program's state at once, and it ends when supervisord does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from emp_orch import marks
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import AGENT, ProgramName
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.machine.agent.carry_out import CarryOut
from emp_orch.machine.agent.commands import CommandFollower
from emp_orch.machine.agent.parts import make_parts
from emp_orch.machine.agent.relay import Relay
from emp_orch.machine.agent.report import SelfReport, build_in
from emp_orch.machine.agent.start_up import StartUp
from emp_orch.machine.agent.takeover import Takeover
from emp_orch.machine.boot.join import JOINED, Membership, Renewal
from emp_orch.machine.boot.redis_url import own_url
from emp_orch.machine.health.server import health_app, serve
from emp_orch.machine.home import folder as folders
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.listener import SupervisorEvent, supervisor_events
from emp_orch.machine.observe.exits import is_unasked_end, with_end
from emp_orch.procident import identify
from emp_orch.runtimes.process.log_keeper import keep_logs
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.redis import client
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("agent")

# A Redis that hangs must not keep the machine from stopping.
WITHDRAW_S = 3.0


def boot_id() -> str:
    """Identifies one life of supervisord, our parent."""
    parent = identify(os.getppid())
    return str(parent) if parent else "orphan"


class Agent:
    """One machine's agent. `run` lasts until supervisord closes our input or tells us to stop."""

    def __init__(
        self,
        folder: MachineFolder,
        config: MachineConfig,
        r: Client,
        keys: Keys,
        *,
        redis: str,
        renewal: Renewal | None = None,
        box: str = "",
    ) -> None:
        """`redis` is where `r` connects to, fit to be shown; `renewal` and `box`, its identity, those of a machine that
        joined by itself."""
        self._parts = make_parts(
            folder, config, r, keys, boot_id=boot_id(), renewal=renewal, report=lambda: self._report.now()
        )
        self._report = SelfReport(self._parts, redis=redis, box=box)
        # Set to end this agent in good order; its supervisord starts the next.
        self._stop = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._start_up = StartUp(self._parts, self._report, self._group)
        self._takeover = Takeover(self._parts, self._report, self._start_up)

    def report(self) -> MachineReport:
        """What this machine says of itself."""
        return self._report.now()

    async def run(self) -> None:
        """Until supervisord ends or stops us; then the report is taken away if the whole machine stops."""
        parts, machine = self._parts, self._parts.kept.machine
        runner, port = await self._serve_health()
        self._leave_health_port(port)
        log.info("agent of %s: boot %s, health on port %d", machine.id, parts.kept.state.boot_id, port)
        try:
            async with self._group as group:
                await parts.watch.refresh_all()
                parts.last_exits.missed(p.name for p in machine.programs if p.kind.once)
                ending = group.create_task(self._until_told(), name="events")
                tasks = [
                    group.create_task(parts.link.run(), name="link"),
                    group.create_task(self._follow_commands().run(), name="orders"),
                    group.create_task(parts.watch.run(), name="watch"),
                    group.create_task(parts.gpus.run(), name="gpus"),
                    group.create_task(parts.disk.run(), name="disk"),
                    group.create_task(parts.packages.run(), name="packages"),
                    group.create_task(_keep_logs(), name="logs"),
                    group.create_task(self._find_build(), name="build"),
                ]
                self._start_up.begin()
                await ending
                for task in (*tasks, self._start_up.task):
                    if task is not None:
                        task.cancel()
        finally:
            await runner.cleanup()
        # Its event may still be on its way to us when we are told to stop.
        if self._report.status is MachineStatus.STOPPING or await parts.supervisor.is_ending():
            with suppress(*TRANSIENT):
                async with client.within(WITHDRAW_S):
                    await parts.link.withdraw()

    def _follow_commands(self) -> CommandFollower:
        parts, carry_out = self._parts, CarryOut(self._parts, self._takeover, self._stop.set)
        return CommandFollower(
            parts.r,
            parts.keys,
            parts.kept.machine.id,
            last=parts.kept.state.last_command,
            trust=parts.trust,
            catch_up=self._takeover.catch_up,
            carry_out=carry_out.command,
            answered=carry_out.answered,
            remember=lambda last: parts.kept.remember(last_command=last, floor=parts.trust.floor),
        )

    async def _find_build(self) -> None:
        if (build := await asyncio.to_thread(build_in, self._parts.folder)) is not None:
            self._report.build = build
            self._parts.link.dirty()

    # -- the health port

    async def _serve_health(self) -> tuple[web.AppRunner, int]:
        """On the port emp.yaml names; on any free one where that is taken, which the report tells."""
        wanted = self._parts.kept.machine.health_port
        try:
            runner, self._report.health_port = await serve(health_app(self.report), "127.0.0.1", wanted)
        except OSError as e:
            log.error("health port %d cannot be used (%s); using a free one", wanted, e.strerror)
            runner, self._report.health_port = await serve(health_app(self.report), "127.0.0.1", 0)
        return runner, self._report.health_port

    def _leave_health_port(self, port: int) -> None:
        try:
            self._parts.folder.write_health_port(port)
        except EmpError as e:
            log.error("%s; a container's health check will not find this agent", e.message)

    # -- supervisord's events

    async def _until_told(self) -> None:
        """supervisord's events until its end, or until SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        listening = asyncio.create_task(self._listen())
        stopping = asyncio.create_task(self._stop.wait())
        _, pending = await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await listening

    async def _listen(self) -> None:
        async for event in supervisor_events():
            if event.name == "SUPERVISOR_STATE_CHANGE_STOPPING":
                self._report.set_status(MachineStatus.STOPPING, "")
            elif event.name.startswith("PROCESS_STATE_") and event.fields.get("processname") != AGENT:
                name = ProgramName(event.fields["processname"])
                self._count_end(name, event)
                await self._parts.watch.refresh(name)

    def _count_end(self, name: ProgramName, event: SupervisorEvent) -> None:
        parts = self._parts
        program = parts.kept.machine.program(name)
        if is_unasked_end(event, once=program is not None and program.kind.once):
            parts.last_exits.ended(name, int(event.fields.get("pid", 0)))
            ends = with_end(parts.programs.ends_ms.get(name, ()), int(time.time() * 1000))
            parts.kept.remember_ends({**parts.programs.ends_ms, name: ends})


async def _keep_logs() -> None:
    """Those of supervisord, our parent, and of its programs."""
    supervisord, carried = identify(os.getppid()), marks.carried(os.environ)
    if supervisord is not None and carried is not None:
        await keep_logs(supervisord, folders.log_folders(), above=carried[1])


async def run_agent() -> None:
    """The agent of the machine whose environment we are in, until its supervisord ends."""
    folder = folders.from_environment()
    config = folder.read_config()
    if config is None:
        raise EmpError(f"no configuration in {folder.root}", hint="`emp machine` fetches it before supervisord starts")
    url = own_url()
    async with AsyncExitStack() as stack:
        joined = Membership(folder, config.machine.id) if JOINED in os.environ else None
        kept = joined.kept() if joined else None
        if kept is not None and kept.gate:
            await stack.enter_async_context(Relay(folder.root, kept.gate))
        r = client.client(url, owner=client.told_owner(), name=f"emp:agent:{config.machine.id}")
        stack.push_async_callback(r.aclose)
        keys = Keys(os.environ.get("EMP_REDIS_PREFIX", ""))
        renewal = Renewal(joined, url=url) if joined else None
        box = joined.box() if joined else ""
        await Agent(folder, config, r, keys, redis=client.address(url), renewal=renewal, box=box).run()
