"""Slurm's command line tools: bounded in time and size, told in Slurm's own words."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from emp_orch.plaintext import one_line
from emp_orch.runtimes.providers.base import ProviderError

# They wait and ask again when slurmctld is away.
CALL_S = 20.0
MAX_ANSWER = 64 * 2**20
_MAX_SAID = 64 * 1024
_SHOWN_LINES = 3
_SHOWN_CHARS = 400
# What the tools need of the environment; SBATCH_* and the like would change what a job is.
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SLURM_CONF", "SLURM_JWT", "LD_LIBRARY_PATH", "TZ")


class Said(Struct, frozen=True, kw_only=True):
    """`code`: as it exited; `words`: the last lines of stderr, one line."""

    code: int
    out: bytes
    words: str


async def call(
    argv: Sequence[str], *, conf: str = "", given: bytes = b"", fds: tuple[int, ...] = (), within_s: float = CALL_S
) -> Said:
    """Run one tool, with the slurm.conf `conf` where it is given. Raises ProviderError where it is not there, takes
    longer, or answers with too much.
    """
    environ = {name: os.environ[name] for name in _PASSED if name in os.environ} | {"LC_ALL": "C"}
    environ |= {"SLURM_CONF": conf} if conf else {}
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
        )
    except OSError as e:
        raise ProviderError(
            f"`{argv[0]}` cannot be run here: {e.strerror}",
            hint="the control plane's host needs Slurm's command line tools, and slurm.conf",
        ) from e
    try:
        async with asyncio.timeout(within_s):
            out, err, _ = await asyncio.gather(
                _read(child.stdout, MAX_ANSWER), _read(child.stderr, _MAX_SAID), _feed(child.stdin, given)
            )
            if len(out) > MAX_ANSWER:
                raise ProviderError(f"`{argv[0]}` printed more than {MAX_ANSWER} bytes")
            return Said(code=await child.wait(), out=out, words=_last_lines(err))
    except TimeoutError:
        raise ProviderError(
            f"`{argv[0]}` did not answer within {within_s:g} s", hint="`scontrol ping` says whether slurmctld is there"
        ) from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.shield(child.wait())


def failed(tool: str, said: Said) -> ProviderError:
    return ProviderError(f"`{tool}` failed: {said.words or f'exit {said.code}'}")


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """All that it says, of which one byte more than `most` is kept."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(65536)):
        kept += chunk[: max(0, most + 1 - len(kept))]
    return bytes(kept)


async def _feed(stream: asyncio.StreamWriter | None, given: bytes) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(given)
        await stream.drain()
    stream.close()


def _last_lines(err: bytes) -> str:
    lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    return one_line("; ".join(lines[-_SHOWN_LINES:]))[:_SHOWN_CHARS]
