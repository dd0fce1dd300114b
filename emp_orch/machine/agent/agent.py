"""The machine agent: reports, runs the start-up sequence, carries out commands. It decides nothing about the fleet.

It is a supervisord event listener, so it hears of a program's state at once, and it ends when supervisord does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import time
from contextlib import AsyncExitStack, suppress
from typing import Any, assert_never

from aiohttp import web
from msgspec import structs

from emp_orch import __version__, builds, marks
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import DesiredMachine, secrets_of
from emp_orch.fleet.model.fleet import AGENT, ProgramName
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.fleet.model.package import Build
from emp_orch.host import sessions
from emp_orch.machine.agent.commands import Orders
from emp_orch.machine.agent.disk import Disk
from emp_orch.machine.agent.exits import is_unasked_end, with_end
from emp_orch.machine.agent.gpus import Gpus
from emp_orch.machine.agent.last_exits import LastEnds
from emp_orch.machine.agent.link import Link
from emp_orch.machine.agent.programs import Programs, packages_in_use
from emp_orch.machine.agent.trust import Trust, read_key
from emp_orch.machine.agent.watch import Watch
from emp_orch.machine.apart import SERVICES_FOLDER, why_together
from emp_orch.machine.boot import folder as folders
from emp_orch.machine.boot.box_gpus import as_allotted
from emp_orch.machine.boot.folder import MachineFolder
from emp_orch.machine.boot.join import JOINED, Membership, Renewal
from emp_orch.machine.boot.redis_url import own_url
from emp_orch.machine.boot.sequence import Sequence, announced_by
from emp_orch.machine.health import ports, probes
from emp_orch.machine.health.check_command import Commands
from emp_orch.machine.health.checks import check_of
from emp_orch.machine.health.server import health_app, serve
from emp_orch.machine.listener import SupervisorEvent, supervisor_events
from emp_orch.machine.package.keep import Packages
from emp_orch.packing import own_digest
from emp_orch.procident import identify
from emp_orch.runtimes.process.log_keeper import keep_logs
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.store.fleet.commands import Command, CommandVerb
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
        self._box = box
        self._renewal = renewal
        self._folder = folder
        self._config = config
        self._r = r
        self._keys = keys
        self._redis = redis
        self._supervisor = Supervisor(folder.root)
        self._state = folder.read_state(boot_id())
        renew = renewal.renew if renewal else None
        self._trust = Trust(
            lambda: read_key(folder.orders, config.machine.id),
            self._state.floor,
            renew=renew,
            changed=lambda: self.link.dirty(),
        )
        self._status = MachineStatus.STARTING
        self._error = ""
        self._health_port = 0
        self._started_ms = int(time.time() * 1000)
        self._work: asyncio.Task[None] | None = None
        self._build: Build | None = None
        # Set to end this agent in good order; its supervisord starts the next.
        self._stop = asyncio.Event()
        self._outdated = False
        self._group = asyncio.TaskGroup()
        self.programs = Programs()
        self.programs.ends_ms = dict(self._state.ends_ms)
        self._last_ends = LastEnds(folder, self.programs)
        self._commands = Commands(folder, self._last_ends.secrets)
        self.link = Link(r, keys, self.machine.id, self.report, renewal.refused if renewal else None)
        self.packages = Packages(
            folder, tell=self.link.event, on_change=self.link.dirty, in_use=lambda: packages_in_use(self.programs)
        )
        self.packages.want(config.package)
        self.programs.on_change = self._on_programs
        in_container = config.machine.container is not None or SERVICES_FOLDER in os.environ
        self._together = why_together(os.environ) if in_container else ""
        self._gpus = Gpus(self.link.dirty)
        self._disk = Disk({folder.root, folder.services, *folders.log_folders()}, self.link.dirty)
        self._watch = Watch(
            self.programs,
            self._supervisor,
            tell=self.link.event,
            offset_ms=lambda: self.link.offset_ms,
        )

    @property
    def machine(self) -> DesiredMachine:
        return self._config.machine

    def report(self) -> MachineReport:
        """What this machine says of itself."""
        self._last_ends.memory.look()
        return MachineReport(
            machine_id=self.machine.id,
            status=self._status,
            boot_id=self._state.boot_id,
            generation=self._config.generation,
            config_hash=self._config.digest,
            num_gpus=self.machine.num_gpus,
            programs=dict(self.programs.reports),
            host=platform.node(),
            agent_version=__version__,
            started_ms=self._started_ms + self.link.offset_ms,
            gpus=self._gpus.reports,
            gpu_error=self._gpus.error,
            health_port=self._health_port,
            error=self._error,
            redis=self._redis,
            rival=self.link.rival,
            forged=self._trust.words,
            package=self.packages.current,
            package_error=self.packages.error,
            build=self._build,
            disk_error=self._disk.error,
            box=self._box,
            together=self._together,
        )

    # -- what the parts tell us

    def _on_programs(self) -> None:
        self.link.dirty()
        self.packages.nudge()

    def _set_status(self, status: MachineStatus, error: str) -> None:
        if self._status is MachineStatus.STOPPING or (status, error) == (self._status, self._error):
            return
        self._status, self._error = status, error
        self.link.event("machine_status", status=status, error=error)

    def _announce(self, key: str | None, type_: str, **data: Any) -> None:
        """Publish an event; one with a key only once a boot."""
        if key is not None:
            if key in self._state.announced:
                return
            self._remember(announced=(*self._state.announced, key))
        self.link.event(type_, **data)

    def _remember(self, **changes: Any) -> None:
        """Keep the state on disk; where that fails, the machine works on, and only a restart of the agent forgets."""
        self._state = structs.replace(self._state, **changes)
        try:
            self._folder.write_state(self._state)
        except EmpError as e:
            log.error("%s", e.message)

    # -- life

    async def run(self) -> None:
        """Until supervisord ends or stops us; then the report is taken away if the whole machine stops."""
        runner, self._health_port = await self._serve_health()
        self._leave_health_port()
        log.info("agent of %s: boot %s, health on port %d", self.machine.id, self._state.boot_id, self._health_port)
        try:
            async with self._group as group:
                await self._watch.refresh_all()
                self._last_ends.missed(p.name for p in self.machine.programs if p.kind.once)
                ending = group.create_task(self._until_told(), name="events")
                tasks = [
                    group.create_task(self.link.run(), name="link"),
                    group.create_task(self._orders().run(), name="orders"),
                    group.create_task(self._watch.run(), name="watch"),
                    group.create_task(self._gpus.run(), name="gpus"),
                    group.create_task(self._disk.run(), name="disk"),
                    group.create_task(self.packages.run(), name="packages"),
                    group.create_task(_keep_logs(), name="logs"),
                    group.create_task(self._find_build(), name="build"),
                ]
                self._begin_work()
                await ending
                for task in (*tasks, self._work):
                    if task is not None:
                        task.cancel()
        finally:
            await runner.cleanup()
        # Its event may still be on its way to us when we are told to stop.
        if self._status is MachineStatus.STOPPING or await self._supervisor.is_ending():
            with suppress(*TRANSIENT):
                async with client.within(WITHDRAW_S):
                    await self.link.withdraw()

    async def _find_build(self) -> None:
        """Read emp's files as soon after our start as we can: they are what we have loaded, or a moment older."""
        with suppress(EmpError):
            emp = await asyncio.to_thread(own_digest)
            self._build = Build(emp=emp, supervision=builds.left(self._folder.run, builds.LOADED))
            self.link.dirty()

    async def _serve_health(self) -> tuple[web.AppRunner, int]:
        """On the port emp.yaml names; on any free one where that is taken, which the report tells."""
        try:
            return await serve(health_app(self.report), "127.0.0.1", self.machine.health_port)
        except OSError as e:
            log.error("health port %d cannot be used (%s); using a free one", self.machine.health_port, e.strerror)
            return await serve(health_app(self.report), "127.0.0.1", 0)

    def _leave_health_port(self) -> None:
        try:
            self._folder.write_health_port(self._health_port)
        except EmpError as e:
            log.error("%s; a container's health check will not find this agent", e.message)

    def _begin_work(self) -> None:
        self._work = self._group.create_task(self._start_up(), name="start-up")

    async def _start_up(self) -> None:
        """Health checks and the start-up sequence for the configuration in force."""
        # A former agent may have been killed half way through a reload; where nothing differs this does nothing.
        with suppress(EmpError):
            await self._reload()
            await self._watch.refresh_all()
        sequence = Sequence(
            self.machine,
            self.programs,
            self._supervisor,
            first="machine_startup:ready" not in self._state.announced,
            held=lambda name: name in self._state.stopped,
            announce=self._announce,
            set_status=self._set_status,
            before_workers=self.packages.before_start,
        )
        async with sessions.straight() as session, asyncio.TaskGroup() as group:
            for program in as_allotted(self.machine, os.environ).programs:
                ask = check_of(program, session, self._commands)
                if program.health is not None and ask is not None:
                    group.create_task(probes.watch(self.programs, program, program.health, ask))
            group.create_task(ports.watch(self.machine, self.programs, os.getppid()), name="ports")
            group.create_task(sequence.run(), name="sequence")

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
                self._set_status(MachineStatus.STOPPING, "")
            elif event.name.startswith("PROCESS_STATE_") and event.fields.get("processname") != AGENT:
                name = ProgramName(event.fields["processname"])
                self._count_end(name, event)
                await self._watch.refresh(name)

    def _count_end(self, name: ProgramName, event: SupervisorEvent) -> None:
        program = self.machine.program(name)
        if is_unasked_end(event, once=program is not None and program.kind.once):
            self._last_ends.ended(name, int(event.fields.get("pid", 0)))
            ends = with_end(self.programs.ends_ms.get(name, ()), int(time.time() * 1000))
            self._remember_ends({**self.programs.ends_ms, name: ends})

    def _remember_ends(self, ends_ms: dict[ProgramName, tuple[int, ...]]) -> None:
        self.programs.ends_ms = ends_ms
        self._remember(ends_ms=ends_ms)

    # -- commands

    def _orders(self) -> Orders:
        return Orders(
            self._r,
            self._keys,
            self.machine.id,
            last=self._state.last_command,
            trust=self._trust,
            catch_up=self._catch_up,
            carry_out=self._carry_out,
            answered=self._end_if_outdated,
            remember=lambda last: self._remember(last_command=last, floor=self._trust.floor),
        )

    async def _carry_out(self, command: Command) -> None:
        match command.verb:
            case CommandVerb.APPLY_CONFIG:
                await self._apply_config()
            case CommandVerb.START_PROGRAM:
                name = self._known(command.program)
                await self._fetch_secrets(self._config)
                await self._hold(name, False)
                await self._supervisor.start(name)
            case CommandVerb.RESTART_PROGRAM if command.program == AGENT:
                self._outdated = True
            case CommandVerb.RESTART_PROGRAM:
                name = self._known(command.program)
                await self._fetch_secrets(self._config)
                await self._hold(name, False)
                self._last_ends.asked(name, command.cause)
                await self._supervisor.restart(name)
            case CommandVerb.STOP_PROGRAM:
                name = self._known(command.program)
                await self._hold(name, True)
                program = self.machine.program(name)
                await self._supervisor.stop_for_good(name, autorestart=program is None or not program.kind.once)
            case _:
                assert_never(command.verb)

    def _end_if_outdated(self) -> None:
        if self._outdated:
            log.info("asked to end: the next agent runs the emp that is here now")
            self._stop.set()

    async def _fetch_secrets(self, config: MachineConfig) -> None:
        """On a box that joined nobody else puts the values that its programs name; they may have changed."""
        if self._renewal is not None and secrets_of(config.machine):
            await self._renewal.renew()

    async def _hold(self, name: ProgramName, held: bool) -> None:
        """Keep the start-up sequence off `name`, or let it be started again. Its ends are counted anew: whoever stops
        or starts it has dealt with the former ones, and a mended program must not be stopped for them.
        """
        others = tuple(n for n in self._state.stopped if n != name)
        self._remember(stopped=(*others, name) if held else others)
        self._remember_ends({n: e for n, e in self.programs.ends_ms.items() if n != name})
        await self.programs.touch()

    def _known(self, text: str | None) -> ProgramName:
        name = ProgramName(text or "")
        if self.programs.get(name) is None:
            raise EmpError(f"no program {text!r} on {self.machine.id}")
        return name

    async def _apply_config(self) -> None:
        """Take over the configuration that the reconciler wrote."""
        config = await self._trust.config(self._r, self._keys, self._config)
        if config is None:
            raise EmpError(f"there is no configuration for {self.machine.id} in Redis")
        await self._take_over(config)

    async def _catch_up(self) -> None:
        """Take over a configuration that was written while nobody here listened."""
        config = await self._trust.config(self._r, self._keys, self._config)
        # One that joined may know more than was ever written for it.
        if config is None or (self._renewal is not None and config.generation < self._config.generation):
            return
        if (config.digest, config.generation) != (self._config.digest, self._config.generation):
            await self._take_over(config)

    async def _take_over(self, config: MachineConfig) -> None:
        """Run `config` from now on, in place: what did not change runs on untouched."""
        await self._fetch_secrets(config)
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        try:
            self._folder.write_files(config)
            added, changed, removed = await self._reload()
            self._folder.keep_config(config)
            for program in config.machine.programs:
                # What the old check said is no answer to a new one, in no report that names the new generation.
                if (old := self.machine.program(program.name)) is not None and old.health != program.health:
                    await self.programs.set_health(program.name, None, "")
            if added or changed or removed:
                # No report may say that it is ready with a configuration that it is still taking over.
                self._set_status(MachineStatus.CONFIGURING, "")
            self._config = config
            self.packages.want(config.package)
            again = announced_by([*added, *changed, *removed])
            names = {p.name for p in config.machine.programs}
            self._remember(
                announced=tuple(k for k in self._state.announced if k not in again),
                stopped=tuple(n for n in self._state.stopped if n in names),
            )
            # What the old program did says nothing of the new one.
            self._remember_ends({n: e for n, e in self.programs.ends_ms.items() if n not in {*changed, *removed}})
            self._last_ends.keep_only(names - {*changed, *removed})
            await self._watch.refresh_all()
        except EmpError:
            self._begin_work()  # with the configuration in force
            raise
        self._begin_work()

    async def _reload(self) -> tuple[list[str], list[str], list[str]]:
        added, changed, removed = await self._supervisor.reload(keep=lambda name: name == AGENT)
        if added or changed or removed:
            log.info("supervisord reloaded: %d added, %d changed, %d removed", len(added), len(changed), len(removed))
        return added, changed, removed


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
        r = client.client(url, owner=client.told_owner(), name=f"emp:agent:{config.machine.id}")
        stack.push_async_callback(r.aclose)
        keys = Keys(os.environ.get("EMP_REDIS_PREFIX", ""))
        joined = Membership(folder, config.machine.id) if JOINED in os.environ else None
        renewal = Renewal(joined, url=url) if joined else None
        box = joined.box() if joined else ""
        await Agent(folder, config, r, keys, redis=client.address(url), renewal=renewal, box=box).run()
