"""One request to a program: a process without a shell, in a session of its own, of which nothing is left.

The request is on its stdin, as a file in memory, and so in no argument and on no disk. Its answer is what stands on its
stdout when it has ended; what it started in other sessions may live on. Until it is reaped its number is nobody else's:
so is its group's, which is killed before. Source: pidfd_open(2).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from emp_orch.errors import Exit
from emp_orch.procident import on_end
from emp_orch.runtimes.last_words import shown
from emp_orch.runtimes.providers.base import ProviderError

# Of its stderr, the end; enough for what is shown of it.
_KEPT = 32 * 1024
_READ = 64 * 1024
_SHOWN_COMMAND = 60
_SHOWN_LINES = 3
_SHOWN_CHARS = 320
_KILLED_S = 5.0
# What the kernel keeps of a pipe, where nobody asked for more.
_PIPE = 64 * 1024


class CannotRun(ProviderError):
    """There is no such program, or it is none."""

    exit_code = Exit.USAGE


class Program(Struct, frozen=True, kw_only=True):
    """`cwd` is the fleet's folder: paths in `command` are relative to it. `environ` is all that it finds in its
    environment, `secrets` what of that no word may show.
    """

    command: tuple[str, ...]
    cwd: Path
    environ: Mapping[str, str]
    secrets: tuple[str, ...]

    @property
    def name(self) -> str:
        """As people know it."""
        text = shlex.join([Path(self.command[0]).name, *self.command[1:]])
        return f"`{text if len(text) <= _SHOWN_COMMAND else text[: _SHOWN_COMMAND - 1] + '…'}`"


class _Output:
    """What comes out of a pipe: the first `most` bytes, or the last."""

    def __init__(self, most: int, *, tail: bool = False) -> None:
        self.read_from, self.write_to = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_from, False)
        self.kept = b""
        self.too_much = False
        self._most = most
        self._tail = tail

    def take(self) -> bool:
        """Take what is there; False when there is no more, for now or ever."""
        try:
            chunk = os.read(self.read_from, _READ)
        except BlockingIOError:
            return False
        if self._tail:
            self.kept = (self.kept + chunk)[-self._most :]
        elif len(self.kept) + len(chunk) > self._most:
            self.too_much = True
        else:
            self.kept += chunk
        return bool(chunk)

    def take_all(self) -> None:
        """A pipe's worth: one that outlived the program may write without end."""
        for _ in range(_PIPE // _READ + 1):
            if not self.take():
                return

    def close(self) -> None:
        for fd in (self.read_from, self.write_to):
            with suppress(OSError):
                os.close(fd)


async def answer_of(program: Program, request: str, document: bytes, *, within_s: float, most: int) -> bytes:
    """What it prints, of `most` bytes at most, when it ends with status 0.

    Raises CannotRun, and ProviderError where it ends otherwise, takes longer or prints more, with the last lines of its
    stderr.
    """
    out, err = _Output(most), _Output(_KEPT, tail=True)
    with ExitStack() as stack:
        stack.callback(out.close)
        stack.callback(err.close)
        child = _started(program, document, out, err)
        try:
            late = await _ended(child.pid, within_s, out, err)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            await _reaped(child)
        out.take_all()
        err.take_all()
    how = _fault(child.returncode, within_s if late else None, most if out.too_much else None)
    if not how:
        return out.kept
    said = _last_lines(err.kept, program.secrets)
    raise ProviderError(f"{program.name} {how} at {request}{f': {said}' if said else ''}")


def _started(program: Program, document: bytes, out: _Output, err: _Output) -> subprocess.Popen[bytes]:
    stdin = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        os.write(stdin, document)
        os.lseek(stdin, 0, os.SEEK_SET)
        return subprocess.Popen(
            program.command,
            stdin=stdin,
            stdout=out.write_to,
            stderr=err.write_to,
            cwd=program.cwd,
            env=dict(program.environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        hint = "paths are relative to the folder of emp.yaml; it must be executable, or be given to what runs it"
        raise CannotRun(f"`{program.command[0]}` cannot be run in {program.cwd}: {why}", hint=hint) from e
    finally:
        os.close(stdin)


async def _ended(pid: int, within_s: float, out: _Output, err: _Output) -> bool:
    """Whether it is late. It is waited for no longer than until it has printed too much. It is not reaped."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()

    def take() -> None:
        out.take()
        if out.too_much:
            end.set()

    loop.add_reader(out.read_from, take)
    loop.add_reader(err.read_from, err.take)
    try:
        with on_end(pid, end.set, loop):
            async with asyncio.timeout(within_s):
                await end.wait()
        return False
    except TimeoutError:
        return True
    finally:
        loop.remove_reader(out.read_from)
        loop.remove_reader(err.read_from)


async def _reaped(child: subprocess.Popen[bytes]) -> None:
    """It was killed; one that hangs in the kernel dies when it can."""
    try:
        if child.poll() is None:
            end = asyncio.Event()
            with on_end(child.pid, end.set, asyncio.get_running_loop()), suppress(TimeoutError):
                async with asyncio.timeout(_KILLED_S):
                    await end.wait()
    finally:
        child.poll()


def _last_lines(err: bytes, secrets: Iterable[str]) -> str:
    """The end of what it said: a traceback's last line is the one that counts."""
    said = "; ".join(line.strip() for line in shown(err.decode(errors="replace"), secrets)[-_SHOWN_LINES:])
    return said if len(said) <= _SHOWN_CHARS else "…" + said[1 - _SHOWN_CHARS :]


def _fault(status: int | None, late_s: float | None, too_much: int | None) -> str:
    if late_s is not None:
        return f"did not end within {late_s:g} s, and was killed,"
    if too_much is not None:
        return f"printed more than {too_much} bytes, and was killed,"
    if status is None:
        return "does not end, though it was killed,"
    if status < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
        return f"was ended by signal {-status}"
    return f"exited with status {status}" if status else ""
