"""Health checks that are commands: run as the program is, and ended with all that they began.

Each runs in a session of its own. What leaves that is found as an orphan of the agent's, which is a subreaper, by a
word in its environment. Sources: prctl(2), PR_SET_CHILD_SUBREAPER; proc(5), /proc/PID/task/TID/children; pidfd_open(2).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from emp_orch.fleet.desired.values import DesiredProgram
from emp_orch.fleet.model.fleet import SecretRef
from emp_orch.landlock import within
from emp_orch.machine.apart import fence, workplace
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.runtimes.last_words import shown

# Which run of a check a process belongs to, in its environment.
CHECK = "EMP_HEALTH_CHECK"
_PR_SET_CHILD_SUBREAPER = 36
# What is kept of a check's output, and how much is read when it has ended.
_KEPT = 8 * 1024
_READ = 64 * 1024
# Orphans come one after another, as their parents die.
_ROUND_S = 0.02
_QUIET_ROUNDS = 5


class Commands:
    """The commands of one machine's checks. `hidden()`: what no word may show."""

    def __init__(self, folder: MachineFolder, hidden: Callable[[], Iterable[str]]) -> None:
        self._folder = folder
        self._hidden = hidden
        self._leaders: set[int] = set()
        self._starting = threading.Lock()  # a child that is not among the leaders yet
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    async def run(self, program: DesiredProgram, command: tuple[str, ...], timeout_s: float) -> str:
        """ "" when `command` ends with status 0 in time; else what is wrong, in one line. Nothing of it is left."""
        token, name = secrets.token_hex(8), Path(command[0]).name
        try:
            environment = {**self._environment(program), CHECK: token}
            output = _Output()
            try:
                child = self._started(command, environment, program.cwd, output)
            except BaseException:
                output.close()
                raise
        except OSError as e:
            return f"its check {name} cannot be run: {e.strerror}"
        except ValueError as e:
            return f"its check {name} cannot be run: {e}"
        ended = False
        try:
            ended = await _ended(child.pid, timeout_s, output)
        finally:
            self._end(child, token, ended=ended)
            said = output.close()
        last = next(iter(shown(said, self._hidden())[-1:]), "")
        words = f": {last}" if last else ""
        if not ended:
            return f"its check {name} did not end within {timeout_s:g} s, and was killed{words}"
        return "" if child.returncode == 0 else f"its check {name} {_how(child.returncode)}{words}"

    def _started(
        self, command: tuple[str, ...], environment: dict[str, str], cwd: str | None, output: _Output
    ) -> subprocess.Popen[bytes]:
        with self._starting:
            child = within(
                fence(os.environ, signals=True),  # `kill -0` is a check
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output.write_to,
                    stderr=output.write_to,
                    cwd=workplace(cwd, os.environ) or self._folder.root,
                    env=environment,
                    start_new_session=True,
                ),
            )
            self._leaders.add(child.pid)
        return child

    def _environment(self, program: DesiredProgram) -> dict[str, str]:
        """The program's own, as its launcher makes it."""
        known = _object(os.environ.get("EMP_SECRETS") or self._folder.secrets)
        own = {n: known.get(v.key, "") if isinstance(v, SecretRef) else v for n, v in program.env.items()}
        unset = {n for n, v in program.env.items() if isinstance(v, SecretRef) and v.optional and v.key not in known}
        given = {**os.environ, **_object(self._folder.environment)}
        return given | {n: v for n, v in own.items() if n not in unset}

    def _end(self, child: subprocess.Popen[bytes], token: str, *, ended: bool) -> None:
        """Kill what is left. Until it is reaped, the leader's number is nobody else's."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if ended:
            child.wait()
            self._leaders.discard(child.pid)
        if not ended or self._orphans():  # one that hangs in the kernel dies when it can
            threading.Thread(target=self._end_orphans, args=(child, token), name="check", daemon=True).start()

    def _orphans(self) -> list[int]:
        """Children that are of a check, and were not started as one: nobody else begins a session."""
        return [pid for pid in _children() if pid not in self._leaders and _session(pid) != _session(0)]

    def _end_orphans(self, child: subprocess.Popen[bytes], token: str) -> None:
        """Those of this check, however deep: who loses its parent becomes our child in turn. The dead are reaped."""
        child.wait()
        self._leaders.discard(child.pid)
        quiet = 0
        while quiet < _QUIET_ROUNDS:
            quiet += 1
            with self._starting:
                for pid in self._orphans():
                    with suppress(ChildProcessError, ProcessLookupError, PermissionError):
                        if os.waitpid(pid, os.WNOHANG)[0] == 0 and _is_of(pid, token):
                            os.kill(pid, signal.SIGKILL)
                            quiet = 0
            time.sleep(_ROUND_S)


class _Output:
    """What a check says: the end of it."""

    def __init__(self) -> None:
        self.read_from, self.write_to = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_from, False)
        self._tail = b""

    def take(self) -> bool:
        """Take what is there; False when there is no more, for now or ever."""
        try:
            chunk = os.read(self.read_from, _READ)
        except BlockingIOError:
            return False
        self._tail = (self._tail + chunk)[-_KEPT:]
        return bool(chunk)

    def close(self) -> str:
        """All that was said; what a process that outlived the check may still say is not waited for."""
        os.close(self.write_to)
        self.take()
        os.close(self.read_from)
        return self._tail.decode(errors="replace")


async def _ended(pid: int, timeout_s: float, output: _Output) -> bool:
    """Whether process `pid` ends in time. It is not reaped."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    life = os.pidfd_open(pid)
    loop.add_reader(life, end.set)
    loop.add_reader(output.read_from, output.take)
    try:
        async with asyncio.timeout(timeout_s):
            await end.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(output.read_from)
        loop.remove_reader(life)
        os.close(life)


def _children() -> list[int]:
    """Our children, those that have ended among them; of some kernels nobody can tell."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return os.getsid(0)


def _is_of(pid: int, token: str) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{CHECK}={token}".encode() in variables.split(b"\0")


def _object(path: str | Path) -> dict[str, str]:
    """A flat JSON object of strings; empty when there is no such file."""
    try:
        content = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
