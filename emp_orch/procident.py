"""Who a process is: pid with start time, so that a reused pid is never mistaken for ours.

Source: proc(5). Linux only.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from emp_orch import logmodes, openfiles
from emp_orch.errors import EmpError
from emp_orch.lifemark import START_TICKS, home, leave, place, stat_fields

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# A process that is to become another holds this descriptor open until it has.
_STARTED_FD = "EMP_STARTED_FD"
# What KILL has not ended by then waits for the kernel.
_KILLED_S = 5.0
_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """`start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to the process' start."""

    pid: int
    start_ticks: int

    def __str__(self) -> str:
        return f"{self.pid}-{self.start_ticks}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    """What we read of /proc/PID/stat: state, parent, process group, session, start."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(pid=self.pid, start_ticks=self.start_ticks)


def _stat(pid: int) -> _Stat | None:
    """None when there is no such process, it is a zombie, or it is hidden from us."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    state = fields[0].decode()
    if state in "ZX":
        return None
    return _Stat(
        pid=pid,
        state=state,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[START_TICKS]),
    )


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the live process `pid`; None when it is gone or a zombie."""
    stat = _stat(pid)
    return stat.identity if stat else None


def ancestors(pid: int) -> list[int]:
    """The parents of the live process `pid`, nearest first, as far up as they can be seen."""
    found: list[int] = []
    while (stat := _stat(pid)) is not None and stat.parent not in (0, *found):
        pid = stat.parent
        found.append(pid)
    return found


def alive(who: ProcessIdentity) -> bool:
    """Whether the very process `who` still lives (a zombie does not)."""
    return identify(who.pid) == who


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


# -- identities that processes leave behind


def record(path: Path, who: ProcessIdentity) -> None:
    """Write `who`, with its session and place, to `path`, whole or not at all."""
    leave(str(path), who.pid, who.start_ticks)


def _read(path: Path) -> tuple[ProcessIdentity, int] | None:
    """The identity at `path` and its session; None when there is none, it is damaged, of another boot, or a copy."""
    try:
        pid, ticks, session, where, *folder = path.read_text().split()
        who = ProcessIdentity(pid=int(pid), start_ticks=int(ticks))
        ours = folder == [home(str(path.parent))] if folder else _says_so(who, path.parent)
        return (who, int(session)) if ours and where == place() else None
    except (OSError, ValueError):
        return None


def _says_so(who: ProcessIdentity, run: Path) -> bool:
    """Whether `who` was started to record itself in `run`. An earlier emp wrote no folder into its marks."""
    environ = Path(f"/proc/{who.pid}/environ").read_bytes()
    return f"EMP_RUN_DIR={run}".encode() in environ.split(b"\0") and alive(who)


def recorded(path: Path) -> ProcessIdentity | None:
    """The identity written at `path`; None when there is none that could mean a process of today."""
    found = _read(path)
    return found[0] if found else None


def _living_group(leader: ProcessIdentity, session: int) -> list[ProcessIdentity]:
    """What lives of the process group that `leader` led; empty when its pid now belongs to a stranger.

    Members found after the leader's end are ours if they are of its session and not older than it: the group's
    number may since have been given to somebody else.
    """
    now = identify(leader.pid)
    if now is not None and now != leader:
        return []
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    stats = (stat for pid in pids if (stat := _stat(pid)) is not None)
    return [
        s.identity
        for s in stats
        if s.group == leader.pid and s.session == session and s.start_ticks >= leader.start_ticks
    ]


def end_recorded(
    paths: list[Path],
    *,
    grace_s: float,
    unless: Callable[[], bool] | None = None,
    also: Callable[[], Iterable[ProcessIdentity]] = tuple,
) -> None:
    """End the process group of every identity in `paths`, and what `also` finds: TERM, after `grace_s` KILL. Blocks.

    A file goes once its group has ended, unless it was written anew meanwhile. `unless` is asked once the identities
    are read: then nothing is ended.
    """
    found = {path: read for path in paths if (read := _read(path)) is not None}
    if unless is not None and unless():
        return

    def look() -> set[ProcessIdentity]:
        return {*(m for leader, session in found.values() for m in _living_group(leader, session)), *also()}

    deadline = time.monotonic() + grace_s
    told: set[ProcessIdentity] = set()
    # One that ends may leave others, or begin them with its last words: until nothing is found any more.
    for _ in range(_ROUNDS):
        members = look()
        for member in members - told:
            _signal(member, signal.SIGTERM)
        told |= members
        left = _await_end(list(members), deadline - time.monotonic())
        for member in left:
            _signal(member, signal.SIGKILL)
        if not members or _await_end(left, _KILLED_S):
            break  # or one hangs in the kernel, or is not ours to kill
    for path in paths:
        if _read(path) == found.get(path):
            path.unlink(missing_ok=True)


def _signal(who: ProcessIdentity, sig: signal.Signals) -> None:
    with suppress(PermissionError):  # it became another user's
        send(who, sig)


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


@contextmanager
def on_end(pid: int, call: Callable[[], None], loop: AbstractEventLoop) -> Iterator[None]:
    """`call` once when process `pid` has ended, also when it had before. Raises ProcessLookupError where there is none.

    The pid of a child is its own until we wait for it; that of another process may be a stranger's by now.
    """
    fd = os.pidfd_open(pid)
    loop.add_reader(fd, call)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        os.close(fd)


# -- starting


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; waits for whoever holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def spawn_daemon(
    argv: list[str], *, log: Path, env: Mapping[str, str], cwd: Path, timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, output appended to `log`; it is to call `become`.

    Returns when it has become what it is to be, or has ended. After `timeout_s` it is killed: what cannot be
    known must not live.
    """
    told, tell = os.pipe()
    try:
        try:
            with open(log, "ab", opener=logmodes.opener) as out:
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
        finally:
            os.close(tell)
        # Its end of the pipe closes at exec or exit: either way the read end reports it.
        ready, _, _ = select.select([told], [], [], timeout_s)
        if not ready:
            child.kill()
            child.wait()
        return child
    finally:
        os.close(told)


def become(argv: list[str], *, env: Mapping[str, str], cwd: Path, identity: Path) -> NoReturn:
    """Leave our identity at `identity`, then turn into `argv`: the identity stays right, as pid and start stay.

    The lock beside it is held for life, so that there is one such process at a time.
    Raises EmpError when there is one already.
    """
    openfiles.raise_soft()
    # Not close-on-exec: the lock ends with the process, whatever ends it. Its children close descriptors above 2.
    lock = os.open(identity.parent.parent / f".{identity.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = recorded(identity)
        raise EmpError(f"{identity.name} of {cwd} already runs" + (f" (pid {who.pid})" if who else "")) from None
    me = identify(os.getpid())
    if me is not None:
        record(identity, me)
    environment = dict(env)
    started = environment.pop(_STARTED_FD, None)
    if started is not None:
        os.set_inheritable(int(started), False)
    os.chdir(cwd)
    os.execve(argv[0], argv, environment)  # noqa: S606  # no shell: our own interpreter
