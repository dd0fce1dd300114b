"""The process runtime: a machine is a supervisord on this host, in a session of its own.

It outlives whoever started it. It is known by the identity that `emp machine` leaves in `run/supervisord`
(pid with start time), and its programs by theirs, so nothing is ever stopped by name.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from emp_orch import environments, logmodes, marks
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import needed_secrets
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.isolation import python
from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, alive, locked, recorded, spawn_daemon, started_ms
from emp_orch.runtimes.keys.logins import REDIS_FILE, URL_FILE, MachineLogins
from emp_orch.runtimes.last_words import said_since, secrets_in, size_of
from emp_orch.runtimes.process.stop import end_left, end_machine
from emp_orch.settings import REDIS_OWNER, Settings, write_private
from emp_orch.urls import without_login

# From the spawn of `emp machine` to its identity file: an interpreter's start and one Redis read.
START_TIMEOUT_S = 30.0


class ProcessRuntime:
    """Machines as process groups of this host, below one fleet's `.emp/machines/`."""

    def __init__(self, layout: Layout, settings: Settings | None, logins: MachineLogins | None = None) -> None:
        self._layout = layout
        self._logins = logins or (MachineLogins(layout, settings) if settings else None)
        self._settings = settings
        self._home = _home(layout.state)
        self._children: dict[MachineId, subprocess.Popen[bytes]] = {}

    async def start(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, generation: int, command_key: bytes
    ) -> None:
        await asyncio.to_thread(self._start, machine, secrets, command_key)

    async def remove(self, machine_id: MachineId) -> None:
        self._assure_home()
        await asyncio.to_thread(_delete, self._layout.machine(machine_id))

    async def clear(self, *, volumes: bool = False) -> list[str]:
        """Nothing is left of processes."""
        return []

    async def watch(self, changed: Callable[[], None]) -> None:
        """Nobody tells: a look costs a few reads of /proc."""
        await asyncio.Event().wait()

    async def instances(self) -> dict[MachineId, Instance]:
        return await asyncio.to_thread(self._instances)

    def _assure_home(self) -> None:
        """Raise EmpError where `.emp/` is no longer the one that we began with: there is nothing of ours to look at,
        and whatever we made there would be another fleet's.
        """
        if self._home is not None and _home(self._layout.state) != self._home:
            raise EmpError(
                f"{self._layout.root} is no longer this fleet's folder: it was moved, or its .emp/ was removed",
                hint="nothing is done to machines; `emp down` where the folder is now ends what runs",
            )

    def _start(self, machine: DesiredMachine, secrets: Mapping[str, str], command_key: bytes) -> None:
        self._assure_home()
        root = self._layout.machine(machine.id)
        try:
            root.mkdir(parents=True, exist_ok=True)
            logmodes.make_folder(self._layout.logs)
        except OSError as e:
            raise EmpError(f"cannot make {e.filename}: {e.strerror}", hint="check who owns the fleet's folder") from e
        with locked(root / ".lock"):
            if _is_alive(root):
                return
            end_left(root, self._mark(machine.id))
            self._write_secrets(machine, secrets, command_key)
            self._spawn(machine.id, root)

    def _spawn(self, machine_id: MachineId, root: Path) -> None:
        """Start `emp machine` in a session of its own and wait until it says who it is."""
        argv = python("-m", "emp_orch", "-C", str(self._layout.root))
        argv += ["machine", machine_id, "--dir", str(root), "--logs", str(self._layout.logs)]
        if self._settings is None:
            raise EmpError(f"cannot start {machine_id}: the fleet's settings are not known", hint="run `emp apply`")
        url = without_login(self._settings.machine_redis_url)
        environment = {
            **environments.of_role(environments.MACHINE, os.environ),
            **marks.environment(self._mark(machine_id), self._layout.root),
            "HUB_REDIS_URL": url,
            URL_FILE: str(root / REDIS_FILE),
            "REDIS_URL": url,
            **({} if (owner := self._settings.redis_owner) is None else {REDIS_OWNER: str(owner)}),
            "EMP_REDIS_PREFIX": self._settings.prefix,
            # The default for workers without --artifacts: it never changes, so a running machine may keep it.
            "EMP_ARTIFACTS_URL": self._layout.artifacts_url,
        }
        log = self._layout.log(f"machine-{machine_id}")
        size = size_of(log)
        child = spawn_daemon(argv, log=log, env=environment, cwd=root, timeout_s=START_TIMEOUT_S)
        self._children[machine_id] = child
        if not _is_alive(root):
            said = said_since(log, size, secrets_in(root / "secrets.json"))
            words = f"; last words: {said[-1]}" if said else ""
            raise EmpError(f"machine {machine_id} did not start (exit {child.poll()}){words}", hint=f"see {log}")

    def _mark(self, machine_id: MachineId) -> marks.Mark:
        return marks.of_folder(self._layout.root).of(machine_id, marks.SUPERVISORD)

    async def put_secrets(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, command_key: bytes = b""
    ) -> None:
        self._assure_home()
        if self._layout.machine(machine.id).is_dir():
            await asyncio.to_thread(self._write_secrets, machine, secrets, command_key)

    def _write_secrets(self, machine: DesiredMachine, secrets: Mapping[str, str], command_key: bytes) -> None:
        path = self._layout.machine(machine.id) / "secrets.json"
        try:
            write_private(path, msgspec.json.encode(needed_secrets(machine, secrets)))
            if command_key:
                write_private(path.with_name("orders.json"), command_key)
            if self._settings is not None:
                api = self._settings.api
                access = {"url": api.url, "token": api.token or "", "owner": self._settings.uid}
                write_private(path.with_name("api.json"), msgspec.json.encode(access))
            if self._settings is not None and self._logins is not None:
                way = self._logins.way(machine.id, self._settings.machine_redis_url)
                write_private(path.with_name(REDIS_FILE), f"{way}\n".encode())
        except OSError as e:
            raise EmpError(f"cannot write {path}: {e.strerror}", hint="check its owner, and the free space") from e

    async def prepare(self, machine: DesiredMachine) -> None:
        """Nothing: all that it needs is where it starts."""

    async def stop(self, machine_id: MachineId) -> None:
        self._assure_home()
        root = self._layout.machine(machine_id)
        who = recorded(root / "run" / "supervisord")
        if who is not None and alive(who):
            await end_machine(root, who)
        # A drain takes long: what somebody started here meanwhile is another life, and not what was to be stopped.
        again = partial(_is_alive_again, root, who)
        await asyncio.to_thread(end_left, root, self._mark(machine_id), unless=again)
        child = self._children.pop(machine_id, None)
        if child is not None:
            await asyncio.to_thread(child.wait)

    def _instances(self) -> dict[MachineId, Instance]:
        for child in self._children.values():
            child.poll()  # a child that ended must not stay a zombie
        self._assure_home()
        try:
            roots = sorted(p for p in self._layout.machines.iterdir() if p.is_dir())
        except FileNotFoundError:
            return {}
        return {MachineId(root.name): _instance(root) for root in roots}


def _home(state: Path) -> tuple[int, int] | None:
    """Which folder `state` is; None when there is none."""
    try:
        found = state.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _instance(root: Path) -> Instance:
    who = recorded(root / "run" / "supervisord")
    machine_id = MachineId(root.name)
    if who is None or not alive(who):
        detail = "its supervisord was never started" if who is None else f"its supervisord (pid {who.pid}) is gone"
        return Instance(machine_id=machine_id, state=InstanceState.GONE, detail=detail)
    return Instance(
        machine_id=machine_id,
        state=InstanceState.RUNNING,
        started_ms=started_ms(who),
        boot_id=str(who),
        pid=who.pid,
    )


def _delete(root: Path) -> None:
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return
    except OSError as e:
        raise EmpError(f"cannot remove {e.filename}: {e.strerror}", hint="check who owns the fleet's folder") from e


def _is_alive(root: Path) -> bool:
    who = recorded(root / "run" / "supervisord")
    return who is not None and alive(who)


def _is_alive_again(root: Path, before: ProcessIdentity | None) -> bool:
    """Whether another supervisord lives here than `before`. It records itself before it starts a program."""
    now = recorded(root / "run" / "supervisord")
    return now is not None and now != before and alive(now)
