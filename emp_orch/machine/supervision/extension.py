"""The hooks: methods of supervisord's options, which are all of it that touches the system, replaced by ours.

They are the same from supervisor 4.2.0 on. supervisord's loop and its states stay its own. Source: supervisor/
supervisord.py (runforever, reap), process.py (spawn, _spawn_as_child, kill, finish), options.py.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from supervisor.states import ProcessStates

from emp_orch import builds, openfiles
from emp_orch.adopted import Adopted
from emp_orch.machine import launch
from emp_orch.machine.apart import HIDDEN
from emp_orch.machine.supervision import logs, peers
from emp_orch.machine.supervision.due import seconds_until_due
from emp_orch.machine.supervision.endings import Endings
from emp_orch.machine.supervision.family import Family
from emp_orch.machine.supervision.gate import LAUNCHED, Gate
from emp_orch.marks import MARK

_PR_SET_CHILD_SUBREAPER = 36
# Its group in supervisord.conf.
_AGENT = "agent"
# What supervisord handles (options.setsignals). Between fork and exec it would be heard by a copy of supervisord.
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)


class Namespace:
    """What the extension offers over XML-RPC: nothing yet. Its place in the list tells that it is there."""


def make(supervisord: Any, **_: str) -> Namespace:
    """The factory that `[rpcinterface:emp]` names: called once the programs are known, before any is started."""
    Extension(supervisord).install()
    _tell_build()
    return Namespace()


class Extension:
    """One supervisord's."""

    def __init__(self, supervisord: Any) -> None:
        options = supervisord.options
        self._supervisord = supervisord
        self._options = options
        self._poll, self._fork, self._execve = options.poller.poll, options.fork, options.execve
        self._waitpid, self._kill, self._cleanup = options.waitpid, options.kill, options.cleanup
        self._files = options.minfds
        self._bell = _Bell()
        self._endings = Endings(self._family(), Adopted(Path()), options.logger)
        self._gate = Gate()
        self._check_execv_args, self._argv = options.check_execv_args, list[str]()
        self._told: Any = None
        self._went_on: set[int] = set()

    def _family(self) -> Family:
        return Family(os.getpid(), self._options.pidhistory, os.environ.get(MARK, ""))

    def install(self) -> None:
        logs.install(self._options.logger)
        if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            self._options.logger.warn("emp: this kernel gives us no orphans: what a program leaves may outlive it")
        openfiles.raise_soft()  # supervisord alone sees to 1024
        options = self._options
        options.poller.poll = self.poll
        options.check_execv_args = self.check_execv_args
        options.fork, options.execve = self.fork, self.execve
        options.waitpid, options.kill, options.cleanup = self.waitpid, self.kill, self.cleanup
        self._bell.hang(options.get_socket_map())
        if os.environ.get(HIDDEN):
            peers.install(self._agent_pid, options.logger)
        gc.freeze()  # no collection, in the midst of a start, walks over what stays for good

    # -- the loop

    def poll(self, timeout: float) -> Any:
        """As the poller's, until the next thing is due: its own second is for what nobody tells."""
        self._went_on.clear()
        at_once = self._bell.rang() or _zombies()
        wait_s = 0.0 if at_once else seconds_until_due(self._supervisord, self._endings.due_s())
        self._endings.hold_still()
        return self._poll(min(timeout, wait_s))

    # -- a start

    def check_execv_args(self, filename: str, argv: list[str], st: Any) -> None:
        """The first step of a start: supervisord tells no more of it to what comes next."""
        self._check_execv_args(filename, argv, st)
        self._argv = argv

    def fork(self) -> int:
        """The pid of what becomes the program that is being started; or, as fork, 0 in the child that is to."""
        starting = next((p for p in self._programs() if p.state == ProcessStates.STARTING and not p.pid), None)
        pid = self._gate.start(starting, self._argv) if starting else None
        return pid or self._copy()

    def _agent_pid(self) -> int:
        return next((p.pid for p in self._programs() if p.config.name == _AGENT), 0)

    def _programs(self) -> Iterator[Any]:
        for group in self._supervisord.process_groups.values():
            yield from group.processes.values()

    def _copy(self) -> int:
        """A child that hears no signal in our stead; its group is there before anybody can signal that."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid: int = self._fork()
            if pid == 0:
                self._be_child()
            else:
                with suppress(OSError):  # it may have come first, or have ended
                    os.setpgid(pid, pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _be_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        self._options.minfds = 3  # it would close them one by one; see execve

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> NoReturn:
        """In the child: take emp's own last steps where the command asks for them, without their interpreter."""
        os.closerange(3, self._files)
        if argv[1:3] == LAUNCHED:
            os._exit(launch.begin(argv[3:], env))
        self._execve(filename, argv, env)
        raise AssertionError("execve returned")

    # -- an end

    def waitpid(self) -> tuple[int | None, int | None]:
        """A program that has ended with all that it began; who else ended is of no interest to supervisord."""
        self._go_on()
        pid, status = self._next_whole()
        self._told = self._options.pidhistory.get(pid)
        return pid, status

    def _next_whole(self) -> tuple[int | None, int | None]:
        while True:
            pid, status = self._waitpid()
            if not pid:
                return self._endings.next_whole() or (None, None)
            if self._endings.is_whole(pid, status):
                return pid, status

    def _go_on(self) -> None:
        """The program whose end was told last takes its next step, before listeners are told and wake for it.

        It is the step that the loop's next turn would take; once a turn, so that nobody else waits for one that ends
        again and again.
        """
        program, self._told = self._told, None
        if program is not None and id(program) not in self._went_on:
            self._went_on.add(id(program))
            program.transition()

    def kill(self, pid: int, sig: int) -> None:
        """Never the number of a process that was reaped; one that has just ended is told by `waitpid`."""
        if not self._endings.signal(abs(pid), sig):
            with suppress(ProcessLookupError):
                self._kill(pid, sig)

    def cleanup(self) -> None:
        """supervisord's last step. Where it ends in order, nothing that it began outlives it."""
        if self._supervisord.stopping:
            self._endings.end_rest(self._waitpid)
        self._bell.take_down(self._options.get_socket_map())
        self._cleanup()


def _tell_build() -> None:
    with suppress(OSError):
        builds.leave(Path(os.environ["EMP_RUN_DIR"]), builds.LOADED, builds.supervision_digest())


class _Bell:
    """Rings when a signal came: the loop sleeps in a poll that a signal alone does not end (PEP 475)."""

    def __init__(self) -> None:
        self._ear, self._mouth = os.pipe()
        for fd in (self._ear, self._mouth):
            os.set_blocking(fd, False)
        self._rang = False

    def hang(self, sockets: dict[int, Any]) -> None:
        sockets[self._ear] = self
        signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)

    def take_down(self, sockets: dict[int, Any]) -> None:
        signal.set_wakeup_fd(-1)
        if sockets.pop(self._ear, None) is self:
            os.close(self._ear)
            os.close(self._mouth)

    def rang(self) -> bool:
        """Whether it did since the last time: what came is reaped after the poll, and acted upon in the next turn."""
        rang, self._rang = self._rang, False
        return rang

    # what the loop asks of everything that it polls

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ear, 4096)
        self._rang = True

    def handle_error(self) -> None:
        """There is nothing to mend."""


def _zombies() -> bool:
    """Whether a child waits to be reaped: a turn of the loop reaps a hundred at most."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
