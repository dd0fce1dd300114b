"""The process runtime: a machine is a supervisord on this host, in a session of its own.

It outlives whoever started it. It is known by the identity that `emp machine` leaves in `run/supervisord`
(pid with start time), and its programs by theirs, so nothing is ever stopped by name.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from emp_orch.errors import EmpError
from emp_orch.fleet.desired import DesiredMachine
from emp_orch.fleet.model import MachineId, SecretRef
from emp_orch.fleet.observed import Instance, InstanceState
from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, alive, end_groups, recorded, spawn_daemon, started_ms
from emp_orch.runtimes.supervisor import AGENT, Supervisor
from emp_orch.settings import Settings, write_private

# From the spawn of `emp machine` to its identity file: an interpreter's start and one Redis read.
START_TIMEOUT_S = 30.0
ORPHAN_GRACE_S = 5.0
# After its programs were stopped, supervisord has only the agent left.
SUPERVISORD_STOP_S = 20.0


class ProcessRuntime:
    """Machines as process groups of this host, below one fleet's `.emp/machines/`."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        self._children: dict[MachineId, subprocess.Popen[bytes]] = {}

    async def start(self, machine: DesiredMachine, secrets: Mapping[str, str]) -> None:
        await asyncio.to_thread(self._start, machine, secrets)

    async def remove(self, machine_id: MachineId) -> None:
        await asyncio.to_thread(shutil.rmtree, self._layout.machine(machine_id), ignore_errors=True)

    async def instances(self) -> dict[MachineId, Instance]:
        return await asyncio.to_thread(self._instances)

    def _start(self, machine: DesiredMachine, secrets: Mapping[str, str]) -> None:
        root = self._layout.machine(machine.id)
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._layout.logs.mkdir(exist_ok=True)
        except OSError as e:
            raise EmpError(f"cannot make {e.filename}: {e.strerror}", hint="check who owns the fleet's folder") from e
        with _locked(root):
            if _lives(root):
                return
            end_groups(_identities(root), grace_s=ORPHAN_GRACE_S)
            for stale in (root / "run").glob("*"):
                stale.unlink(missing_ok=True)
            write_private(root / "secrets.json", msgspec.json.encode(_needed(machine, secrets)))
            self._spawn(machine.id, root)

    def _spawn(self, machine_id: MachineId, root: Path) -> None:
        """Start `emp machine` in a session of its own and wait until it says who it is."""
        argv = [sys.executable, "-m", "emp_orch", "-C", str(self._layout.root)]
        argv += ["machine", machine_id, "--dir", str(root), "--logs", str(self._layout.logs)]
        url = self._settings.machine_redis_url
        environment = {**os.environ, "HUB_REDIS_URL": url, "REDIS_URL": url, "EMP_REDIS_PREFIX": self._settings.prefix}
        log = self._layout.log(f"machine-{machine_id}")
        child = spawn_daemon(argv, log=log, env=environment, cwd=root, timeout_s=START_TIMEOUT_S)
        self._children[machine_id] = child
        if not _lives(root):
            raise EmpError(f"machine {machine_id} did not start (exit {child.poll()})", hint=f"see {log}")

    async def stop(self, machine_id: MachineId, *, timeout_s: float) -> None:
        root = self._layout.machine(machine_id)
        who = recorded(root / "run" / "supervisord")
        if who is not None and alive(who):
            # The agent goes last: it says that the machine stops, and takes its report away.
            keep = frozenset({AGENT})
            await Supervisor(root).end(who, drain_s=timeout_s, stop_s=SUPERVISORD_STOP_S, keep=keep)
        await asyncio.to_thread(end_groups, _identities(root), grace_s=ORPHAN_GRACE_S)
        child = self._children.pop(machine_id, None)
        if child is not None:
            await asyncio.to_thread(child.wait)

    def _instances(self) -> dict[MachineId, Instance]:
        for child in self._children.values():
            child.poll()  # a child that ended must not stay a zombie
        try:
            roots = sorted(p for p in self._layout.machines.iterdir() if p.is_dir())
        except FileNotFoundError:
            return {}
        return {MachineId(root.name): _instance(root) for root in roots}


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


def _lives(root: Path) -> bool:
    who = recorded(root / "run" / "supervisord")
    return who is not None and alive(who)


def _identities(root: Path) -> list[ProcessIdentity]:
    """Everything that was ever started below `root` and recorded itself: supervisord and its programs."""
    return [who for path in sorted((root / "run").glob("*")) if (who := recorded(path)) is not None]


def _needed(machine: DesiredMachine, secrets: Mapping[str, str]) -> dict[str, str]:
    """The secrets that this machine's programs name, and no other."""
    refs = {v.key for p in machine.programs for v in p.env.values() if isinstance(v, SecretRef)}
    return {key: value for key, value in secrets.items() if key in refs}


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One start of a machine at a time, whoever asks."""
    fd = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
