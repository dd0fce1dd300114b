"""The control plane of one fleet: its own supervisord with embedded Redis, API, monitor, reconciler, event log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import msgspec

from emp_orch import builds, environments, logmodes, marks
from emp_orch import settings as settings_files
from emp_orch.control.limits import PLANE_SILENCE_S, PLANE_STOP_S
from emp_orch.control.plane.embedded_login import keep_password
from emp_orch.control.plane.parts import PartExits, why_down
from emp_orch.errors import EmpError, Unreachable, WaitTimeout
from emp_orch.fleet.model.package import Build
from emp_orch.isolation import python
from emp_orch.layout import Layout
from emp_orch.packing import own_digest
from emp_orch.procident import (
    ProcessIdentity,
    alive,
    become,
    end_recorded,
    locked,
    recorded,
    send,
    spawn_daemon,
    wait_end,
)
from emp_orch.render.quoting import in_double_quotes
from emp_orch.render.supervisord import render_control
from emp_orch.resources import read_text
from emp_orch.runtimes.last_words import said_since, secrets_in, size_of
from emp_orch.runtimes.process import exit_files
from emp_orch.runtimes.process.stop import begun, end_left
from emp_orch.runtimes.process.supervisor import ProcessInfo, Supervisor
from emp_orch.settings import Listen, Settings, write_private
from emp_orch.store.redis import client

SUPERVISORD_START_S = 30.0
READY_TIMEOUT_S = 30.0
POLL_S = 0.05
PROGRAM_GRACE_S = 10.0


class Age(StrEnum):
    """Of a control plane that runs, beside the emp that asks. What cannot be seen is not called old."""

    NEW = "new"
    ITS_PARTS_OLD = "its parts are of another emp"
    ITS_SUPERVISORD_OLD = "its supervisord is of another emp"


class Plane(ABC):
    """Start, stop and look at the control plane of the fleet in `layout`, whatever it runs as."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @abstractmethod
    def identity(self) -> ProcessIdentity | None:
        """The living process that stands for the whole plane; None when it does not run."""

    @abstractmethod
    def stopped(self) -> bool:
        """Whether it does not run because it was stopped in good order, and not because it ended by itself."""

    @abstractmethod
    def _write(self, settings: Settings) -> None:
        """Write what this plane is started from. May raise OSError."""

    @abstractmethod
    def _start(self) -> bool:
        """As `start`, in a thread. Blocks."""

    @abstractmethod
    async def start_stopped(self) -> None:
        """Start every part that was given up, or that somebody has stopped."""

    @abstractmethod
    async def reload(self) -> None:
        """Make a running control plane follow new settings: every daemon but Redis starts anew."""

    @abstractmethod
    async def programs(self) -> list[ProcessInfo]:
        """The daemons' states; empty when the control plane does not run."""

    @abstractmethod
    async def silence(self, name: str) -> None:
        """End one daemon for good, so that it does nothing more."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop every daemon in good order, Redis last; what outlives that is ended by force."""

    async def start(self) -> bool:
        """Start it; what a killed one left behind is ended first. False: it ran already."""
        starting = asyncio.create_task(asyncio.to_thread(self._start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be stopped half way; its outcome is waited for and undone.
            await asyncio.wait({starting})
            if starting.exception() is None and starting.result():
                await self.stop()
            raise

    def age(self, own: Build) -> Age:
        """Whether what runs was begun by another emp than `own`."""
        return Age.NEW

    @property
    def reload_pending(self) -> bool:
        """Whether daemons may still run with older settings than those written."""
        return (self._layout.control / "reload-pending").exists()

    @reload_pending.setter
    def reload_pending(self, pending: bool) -> None:
        marker = self._layout.control / "reload-pending"
        marker.touch() if pending else marker.unlink(missing_ok=True)

    def prepare(self, settings: Settings, secrets: dict[str, str]) -> None:
        """Write everything the daemons read. Raises EmpError naming the folder that cannot be written."""
        layout = self._layout
        try:
            own = (layout.state, layout.control, layout.machines, layout.artifacts, layout.redis)
            for folder in own:
                folder.mkdir(parents=True, exist_ok=True)
            logmodes.make_folder(layout.logs)
            layout.state.chmod(0o700)
            marks.settle(layout.root)
            self._write(settings)
            write_private(layout.secrets, msgspec.json.encode(secrets))
            keep_password(layout, settings)
            settings_files.save(layout, settings)
        except OSError as e:
            raise EmpError(
                f"cannot write {e.filename}: {e.strerror}", hint="check who owns the fleet's folder, and its free space"
            ) from e

    async def wait_ready(self, settings: Settings) -> None:
        """Until Redis and the API answer. Raises EmpError naming what does not, with the end of its log."""
        ends = PartExits(self._layout)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._wait(ends, lambda: _redis_answers(settings))
                await self._wait(ends, lambda: _http_answers(settings, settings.api, "/ready"))
                await self._wait(ends, lambda: _http_answers(settings, settings.monitor, "/"))
                await self._wait(ends, self._all_stay_up)
        except TimeoutError:
            down = [f"{i.name} {why}" for i in await self.programs() if (why := why_down(self._layout, i))]
            raise WaitTimeout(
                "\n  ".join([f"the control plane was not ready within {READY_TIMEOUT_S:.0f} s", *down]),
                hint=f"look into {self._layout.logs}, or run `emp doctor`",
            ) from None

    async def _wait(self, ends: PartExits, answers: Callable[[], Awaitable[bool]]) -> None:
        """Until `answers`, or until some part turns out not to stay up: then EmpError."""
        while not await answers():
            self.refuse_ended()
            ends.refuse(await self.programs())
            await asyncio.sleep(POLL_S)

    async def _all_stay_up(self) -> bool:
        """Whether no part is on its way up, or down again."""
        return not any(info.statename in ("STARTING", "BACKOFF", "FATAL") for info in await self.programs())

    @abstractmethod
    def refuse_ended(self) -> None:
        """Raise EmpError when what we started for the whole plane has ended again."""


class ControlPlane(Plane):
    """As processes of this host: a supervisord with the daemons."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.supervisor = Supervisor(layout.control)
        self._child: subprocess.Popen[bytes] | None = None
        self._log_size = 0

    @property
    def _run(self) -> Path:
        return self._layout.control / "run"

    def identity(self) -> ProcessIdentity | None:
        """Our living supervisord; None when it does not run."""
        who = recorded(self._run / "supervisord")
        return who if who is not None and alive(who) else None

    def age(self, own: Build) -> Age:
        loaded, started = builds.left(self._run, builds.LOADED), builds.left(self._run, builds.STARTED)
        if loaded not in ("", own.supervision):
            return Age.ITS_SUPERVISORD_OLD
        return Age.NEW if started in ("", own.emp) else Age.ITS_PARTS_OLD

    def stopped(self) -> bool:
        return recorded(self._run / "supervisord") is None  # who stops it takes that away

    def _write(self, settings: Settings) -> None:
        self._run.mkdir(exist_ok=True)
        exit_files.make(self._layout.control)  # its launchers note there where in their logs they began
        text = render_control(
            read_text("templates/control.conf.j2"), embedded_redis=settings.embedded, artifacts=settings.artifacts
        )
        write_private(self._layout.control / "supervisord.conf", text.encode())

    def _start(self) -> bool:
        with locked(self._layout.control / ".lock"):
            if self.identity() is not None:
                return False
            self._end_programs()
            log = self._layout.log("control")
            argv = python("-m", "emp_orch", "-C", str(self._layout.root), "control")
            self._log_size = size_of(log)
            env = environments.of_role(environments.CONTROL, os.environ)
            self._child = spawn_daemon(argv, log=log, env=env, cwd=self._layout.root, timeout_s=SUPERVISORD_START_S)
            self.refuse_ended()
            self._note_build()
            return True

    def _note_build(self) -> None:
        builds.leave(self._run, builds.STARTED, own_digest())

    def refuse_ended(self) -> None:
        if self._child is None or (code := self._child.poll()) is None:
            return
        log = self._layout.log("control")
        said = said_since(log, self._log_size, secrets_in(self._layout.secrets))
        how = f"exited with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        words = f"; last words: {said[-1]}" if said else ""
        raise EmpError(f"the control plane did not start: its supervisord {how}{words}", hint=f"see {log}")

    async def start_stopped(self) -> None:
        """Start every part that supervisord has given up or somebody has stopped."""
        for info in await self.programs():
            if info.statename in ("STOPPED", "EXITED", "FATAL"):
                await self.supervisor.start(info.name)

    async def reload(self) -> None:
        """Make a running control plane follow new settings: every daemon but Redis starts anew."""
        await self.supervisor.reload(keep=lambda _: False)
        names = [p.name for p in await self.programs() if p.name != "redis"]
        for name in names:
            await self.supervisor.restart(name)
        self._note_build()

    async def programs(self) -> list[ProcessInfo]:
        """The daemons' states; empty when the control plane does not run."""
        if self.identity() is None:
            return []
        try:
            return await self.supervisor.all_processes()
        except Unreachable:
            return []

    async def silence(self, name: str) -> None:
        """End one daemon for good, so that it does nothing more; supervisord is ended where it does not answer."""
        who = self.identity()
        if who is not None:
            try:
                async with asyncio.timeout(PLANE_SILENCE_S):
                    await self.supervisor.stop(name)
            except (TimeoutError, EmpError):
                send(who, signal.SIGKILL)
                await asyncio.to_thread(wait_end, who, PLANE_STOP_S)
        await asyncio.to_thread(
            end_recorded, [self._run / name], grace_s=PROGRAM_GRACE_S, also=lambda: begun(self._mark(name))
        )

    async def stop(self) -> None:
        """Stop every daemon in good order, Redis last; what outlives that is ended by force."""
        who = self.identity()
        if who is not None:
            await self.supervisor.end(who, drain_s=PLANE_STOP_S, stop_s=PLANE_STOP_S, keep=frozenset())
        await asyncio.to_thread(self._end_programs)

    def _end_programs(self) -> None:
        end_left(self._layout.control, self._mark(marks.SUPERVISORD), grace_s=PROGRAM_GRACE_S)

    def _mark(self, program: str) -> marks.Mark:
        return marks.of_folder(self._layout.root).of("", program)


async def _redis_answers(settings: Settings) -> bool:
    try:
        async with client.connected(settings.redis_url, owner=settings.redis_owner):
            return True
    except Unreachable:
        return False


async def _http_answers(settings: Settings, server: Listen, path: str) -> bool:
    import aiohttp

    from emp_orch.host import sessions

    headers = {} if server.token is None else {"Authorization": f"Bearer {server.token}"}
    try:
        async with (
            sessions.to_own(settings.uid, timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(server.url + path, headers=headers) as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def become_supervisord(layout: Layout) -> NoReturn:
    """`emp control`: turn into the control plane's supervisord."""
    run = layout.control / "run"
    environment = {
        **os.environ,
        **marks.environment(marks.of_folder(layout.root).of("", marks.SUPERVISORD), layout.root),
        "EMP_PYTHON": in_double_quotes(sys.executable),
        "EMP_ROOT": str(layout.root),
        "EMP_RUN_DIR": str(run),
        "EMP_LOG_DIR": str(layout.logs),
        "EMP_SECRETS": str(layout.secrets),
    }
    argv = python("-m", "supervisor.supervisord", "-c", "supervisord.conf")
    become(argv, env=environment, cwd=layout.control, identity=run / "supervisord")
