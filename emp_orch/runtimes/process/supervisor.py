"""supervisord's XML-RPC, from asyncio. Source: http://supervisord.org/api.html

The socket's path may be longer than the 107 bytes that a Unix address holds, so it is reached through its folder.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import xmlrpc.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct, convert
from supervisor.xmlrpc import Faults, SupervisorTransport

from emp_orch.errors import EmpError, Unreachable
from emp_orch.procident import ProcessIdentity, alive, send, wait_end

STOP_TRIES = 40
STOP_PAUSE_S = 0.05


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads of its own: a stop holds one for as long as a drain, and must not keep others from looking."""
    return ThreadPoolExecutor(max_workers=128, thread_name_prefix="supervisord")


# supervisor/process.py, finish
_NO_REASON = ("Exited too quickly", "Bad exit code")


class ProcessInfo(Struct, frozen=True, kw_only=True):
    """What getProcessInfo tells; times are seconds since the epoch by this host's clock. See `said` for `spawnerr`."""

    name: str
    group: str
    statename: str
    start: int
    stop: int
    exitstatus: int
    pid: int
    spawnerr: str
    now: int = 0

    @property
    def said(self) -> str:
        """Why it could not be started, where supervisord knows: what it says of every end is no reason, and
        supervisor_log tells more."""
        return "" if self.spawnerr.startswith(_NO_REASON) else self.spawnerr


class SupervisorFault(EmpError):
    """supervisord understood, and said no. `code` is one of supervisor.xmlrpc.Faults."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Supervisor:
    """One supervisord, by the folder that holds its `supervisor.sock`. Each call is one connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _call(self, method: str, *args: Any) -> Any:
        try:
            fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        except OSError as e:
            raise Unreachable(f"no supervisord in {self._folder}: {e.strerror}") from e
        try:
            transport = SupervisorTransport(None, None, f"unix:///proc/self/fd/{fd}/supervisor.sock")
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*args)
        except xmlrpc.client.Fault as e:
            raise SupervisorFault(f"supervisord refused {method}{args}: {e.faultString}", e.faultCode) from e
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as e:
            raise Unreachable(f"the supervisord in {self._folder} does not answer: {e}") from e
        finally:
            os.close(fd)

    async def call(self, method: str, *args: Any) -> Any:
        """Any method of the `supervisor` namespace. Raises SupervisorFault, or Unreachable."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_pool(), self._call, method, *args)

    async def all_processes(self) -> list[ProcessInfo]:
        return convert(await self.call("getAllProcessInfo"), list[ProcessInfo])

    async def process(self, name: str) -> ProcessInfo:
        return convert(await self.call("getProcessInfo", name), ProcessInfo)

    async def is_ending(self) -> bool:
        """Whether supervisord itself is about to end. One that does not answer is not."""
        try:
            await self.call("getState")
        except Unreachable:
            return False
        except SupervisorFault as e:
            return bool(e.code == Faults.SHUTDOWN_STATE)
        return False

    async def start(self, name: str) -> None:
        """Ask for a start; one that runs already is fine. What comes of it shows in its state, also an end at once."""
        with _ignoring(Faults.ALREADY_STARTED), _ignoring(Faults.SPAWN_ERROR):
            await self.call("startProcess", name, False)

    async def stop(self, name: str) -> None:
        """Stop and wait for the end; one that does not run is fine."""
        with _ignoring(Faults.NOT_RUNNING):
            await self.call("stopProcess", name, True)

    async def stop_for_good(self, name: str, *, autorestart: bool) -> None:
        """As `stop`, also for one that has just ended: supervisord may be about to start it again."""
        on_its_way = {"STARTING", "RUNNING", "BACKOFF", "STOPPING", *(["EXITED"] if autorestart else [])}
        for _ in range(STOP_TRIES):
            await self.stop(name)
            if (await self.process(name)).statename not in on_its_way:
                return
            await asyncio.sleep(STOP_PAUSE_S)
        raise EmpError(f"{name} is started again whenever it is stopped")

    async def restart(self, name: str) -> None:
        await self.stop(name)
        await self.start(name)

    async def stop_in_order(self, *, keep: frozenset[str] = frozenset(), of: ProcessIdentity | None = None) -> None:
        """Stop every program but `keep`: the highest priority number first, equal ones side by side.

        So workers finish their jobs while their services still run. `of`: only of this very supervisord.
        """
        infos = await self.call("getAllConfigInfo")
        await self._stop_in_order([i["name"] for i in infos if i["name"] not in keep], infos, of)

    async def _stop_in_order(
        self, names: list[str], infos: list[dict[str, Any]], of: ProcessIdentity | None = None
    ) -> None:
        priorities = dict.fromkeys(names, 0) | {i["name"]: i["process_prio"] for i in infos}
        for priority in sorted({priorities[n] for n in names}, reverse=True):
            if of is not None and not alive(of):
                return  # who listens here now was started meanwhile
            await asyncio.gather(*(self.stop(n) for n in names if priorities[n] == priority))

    async def end(self, who: ProcessIdentity, *, drain_s: float, stop_s: float, keep: frozenset[str]) -> None:
        """Stop all programs but `keep` in order, then supervisord itself, which is `who`.

        What outlives `drain_s` and then `stop_s` is left to the caller.
        """
        with suppress(TimeoutError, EmpError):
            async with asyncio.timeout(drain_s):
                await self.stop_in_order(keep=keep, of=who)
        send(who, signal.SIGTERM)
        await asyncio.get_running_loop().run_in_executor(_pool(), wait_end, who, stop_s)

    async def reload(self, keep: Callable[[str], bool]) -> tuple[list[str], list[str], list[str]]:
        """Make supervisord follow its configuration file; what did not change runs on untouched.

        Groups for which `keep` says yes are left alone even when changed. Returns (added, changed, removed).
        """
        infos = await self.call("getAllConfigInfo")  # as loaded, before the file is read anew
        ((added, changed, removed),) = await self.call("reloadConfig")
        changed = [name for name in changed if not keep(name)]
        gone = [*removed, *changed]
        await self._stop_in_order(gone, infos)
        for name in gone:
            with _ignoring(Faults.BAD_NAME):
                await self.call("removeProcessGroup", name)
        for name in [*changed, *added]:
            with _ignoring(Faults.ALREADY_ADDED):
                await self.call("addProcessGroup", name)
        return added, changed, removed


class _ignoring(suppress):  # reads as the context manager it is
    """Suppress one fault code, and only that."""

    def __init__(self, code: int) -> None:
        super().__init__(SupervisorFault)
        self._code = code

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        return isinstance(value, SupervisorFault) and value.code == self._code
