"""Who a process is: pid with start time, so that a reused pid is never mistaken for ours.

Source: proc(5). Linux only.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# A process that is to become another holds this descriptor open until it has.
_STARTED_FD = "EMP_STARTED_FD"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """`start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to the process' start."""

    pid: int
    start_ticks: int

    def __str__(self) -> str:
        return f"{self.pid}-{self.start_ticks}"


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state (field 3) on, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the live process `pid`; None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[19]))


def alive(who: ProcessIdentity) -> bool:
    """Whether the very process `who` still lives (a zombie does not)."""
    return identify(who.pid) == who


def group_members(pgid: int) -> list[ProcessIdentity]:
    """The live processes of process group `pgid`."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    stats = ((pid, fields) for pid in pids if (fields := _stat(pid)) is not None)
    return [
        ProcessIdentity(pid=pid, start_ticks=int(fields[19]))
        for pid, fields in stats
        if fields[0] not in "ZX" and int(fields[2]) == pgid
    ]


def send(who: ProcessIdentity, sig: signal.Signals) -> bool:
    """Signal exactly `who`, through a pidfd so that a reused pid cannot be hit. False when it is gone."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(who):
            return False
        signal.pidfd_send_signal(fd, sig)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def started_ms(who: ProcessIdentity) -> int:
    """When `who` started, ms since the epoch (to about 10 ms)."""
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    boot_s = time.time() - uptime_s
    return int((boot_s + who.start_ticks / os.sysconf("SC_CLK_TCK")) * 1000)


def record(path: Path, who: ProcessIdentity) -> None:
    """Write `who` to `path`, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(f"{who.pid} {who.start_ticks}\n")
    temporary.replace(path)


def recorded(path: Path) -> ProcessIdentity | None:
    """The identity written at `path`; None when there is none, or the file is damaged."""
    try:
        pid, ticks = path.read_text().split()
        return ProcessIdentity(pid=int(pid), start_ticks=int(ticks))
    except (FileNotFoundError, ValueError):
        return None


def living_group(leader: ProcessIdentity) -> list[ProcessIdentity]:
    """What still lives of the process group that `leader` led; empty when its pid now belongs to a stranger.

    While a group has members its id is not given to a new process, so members found after the leader's end are ours.
    """
    now = identify(leader.pid)
    if now is not None and now != leader:
        return []
    return group_members(leader.pid)


def end_groups(leaders: list[ProcessIdentity], *, grace_s: float) -> list[ProcessIdentity]:
    """End every process group led by one of `leaders`: TERM, then KILL after `grace_s`. Blocks.

    Returns what was killed the hard way.
    """
    members = [m for leader in leaders for m in living_group(leader)]
    for member in members:
        send(member, signal.SIGTERM)
    left = _await_end(members, grace_s)
    for member in left:
        send(member, signal.SIGKILL)
    _await_end(left, 5.0)
    return left


def _await_end(members: list[ProcessIdentity], timeout_s: float) -> list[ProcessIdentity]:
    """Wait until all `members` ended, at most `timeout_s`; returns those that live on."""
    deadline = time.monotonic() + timeout_s
    return [m for m in members if not wait_end(m, max(0.0, deadline - time.monotonic()))]


def wait_end(who: ProcessIdentity, timeout_s: float) -> bool:
    """Wait for the end of `who`, told by its pidfd. False when it outlives `timeout_s`."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(who):
            return True
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def spawn_daemon(
    argv: list[str], *, log: Path, env: Mapping[str, str], cwd: Path, timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, output appended to `log`; it is to call `become`.

    Returns when it has become what it is to be, has ended, or after `timeout_s`.
    """
    told, tell = os.pipe()
    try:
        with log.open("ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=(tell,),
                cwd=cwd,
                env={**env, _STARTED_FD: str(tell)},
            )
        os.close(tell)
        # Its end of the pipe closes at exec or exit: either way the read end reports it.
        select.select([told], [], [], timeout_s)
        return child
    finally:
        os.close(told)


def become(argv: list[str], *, env: Mapping[str, str], cwd: Path, identity: Path) -> NoReturn:
    """Leave our identity at `identity`, then turn into `argv`: the identity stays right, as pid and start stay."""
    me = identify(os.getpid())
    if me is not None:
        record(identity, me)
    environment = dict(env)
    started = environment.pop(_STARTED_FD, None)
    if started is not None:
        os.set_inheritable(int(started), False)
    os.chdir(cwd)
    os.execve(argv[0], argv, environment)  # noqa: S606  # no shell: our own interpreter
