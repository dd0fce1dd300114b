"""Keeps the worker package that the configuration names: once per machine, whatever the network and the disk do.

It only sees to it that workers *start* from that package, and says which one that is. Which worker is started again,
and when, is the reconciler's: drift `worker-outdated`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from emp_orch.errors import EmpError
from emp_orch.fleet.model.package import WorkerPackage, in_short
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.package.disk import PackageDisk
from emp_orch.machine.package.fetch import FetchError, fetch
from emp_orch.packing import own_archive, own_digest
from emp_orch.settings import write_private
from emp_orch.store.artifacts.api_access import read_access

log = logging.getLogger("agent")

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
MAX_RETRY_AFTER_S = 300.0
# So long a machine's start waits for the package; then its workers start from what there is.
PATIENCE_S = 10.0


class Packages:
    """`tell(type, …)` publishes an event, `on_change()` that `current` or `error` is another.

    `in_use()` are the digests that workers run from; None: it cannot be told at the moment.
    """

    def __init__(
        self,
        folder: MachineFolder,
        *,
        tell: Callable[..., None],
        on_change: Callable[[], None],
        in_use: Callable[[], frozenset[str] | None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._disk = PackageDisk(folder.packages)
        self._access = folder.api_access
        self._tell = tell
        self._on_change = on_change
        self._in_use = in_use
        self._patience_s = patience_s
        self._wanted: WorkerPackage | None = None
        self._dirty = True
        self._failures = 0
        self._woken = asyncio.Event()
        self._there = asyncio.Event()
        self.current = self._disk.current()
        self.error = ""

    def want(self, package: WorkerPackage | None) -> None:
        """Keep `package` from now on; None: any will do."""
        if package != self._wanted:
            self._wanted, self._failures = package, 0
            self._there.clear()
            self._woken.set()
        if self._arrived():
            self._there.set()

    def _arrived(self) -> bool:
        return self._wanted is None or self._wanted.digest == self.current

    def nudge(self) -> None:
        """Programs changed: what was in use may not be any more."""
        if self._dirty and self._arrived():
            self._woken.set()

    async def before_start(self) -> None:
        """Until workers may start: the package is there, or has been waited for long enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                await self._there.wait()
        if not self._there.is_set() and self._wanted is not None:
            self._event("fallback", self._wanted, error=self.error or "it is still on its way")
            self._there.set()  # said once

    async def run(self) -> None:
        """For ever: fetch what is wanted, delete what is not."""
        while True:
            self._woken.clear()
            pause_s = await self._step()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def _step(self) -> float | None:
        """One try; how long to wait for the next, None: until something changes."""
        wanted = self._wanted
        try:
            if wanted is None or wanted.digest == self.current:
                self._say("")
                await self._tidy()
                return None
            await self._obtain(wanted)
        except EmpError as e:
            return self._failed(wanted, e)
        self._failures = 0
        self._woken.set()
        return None

    async def _obtain(self, wanted: WorkerPackage) -> None:
        digest = wanted.digest
        await asyncio.to_thread(self._disk.prepare)
        if not self._disk.has(digest):
            if not self._failures:
                self._event("downloading", wanted)
            if not await asyncio.to_thread(self._have_it, digest):
                access = None if wanted.url and not self._access.exists() else read_access(self._access)
                await fetch(wanted, access, self._disk.part(digest), wanted=lambda: self._wanted == wanted)
            await asyncio.to_thread(self._disk.install, digest)
        if self._wanted != wanted:
            return
        await asyncio.to_thread(self._disk.switch, digest)
        self.current, self._dirty = digest, True
        self._there.set()
        self._say("")
        self._event("ready", wanted)
        self._on_change()

    def _have_it(self, digest: str) -> bool:
        """Where nobody said how the API is reached, as to a container: whether the emp here is the one, then packed."""
        if self._access.exists() or own_digest() != digest:
            return False
        write_private(self._disk.part(digest), own_archive())
        return True

    async def _tidy(self) -> None:
        if not self._dirty or not self._disk.root.is_dir() or (used := self._in_use()) is None:
            return
        self._dirty = bool(used - {self.current})
        await asyncio.to_thread(self._clean, used, last=not self._dirty)

    def _clean(self, used: frozenset[str], *, last: bool) -> None:
        """In a thread, which an agent that ends waits for: what is deleted is told."""
        removed = self._disk.clean(used)
        if removed or last:
            log.info("Worker cache cleaned: %s removed", ", ".join(map(in_short, removed)) or "nothing")

    def _failed(self, wanted: WorkerPackage | None, e: EmpError) -> float:
        self._failures += 1
        if e.message != self.error:
            log.warning("worker package: %s", e.message)
            if wanted is not None:
                self._event("failed", wanted, error=e.message)
        self._say(e.message)
        pause_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10))
        pause_s *= random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
        asked_s = min(e.after_s, MAX_RETRY_AFTER_S) if isinstance(e, FetchError) else 0.0
        return asked_s + pause_s

    def _say(self, error: str) -> None:
        if error != self.error:
            self.error = error
            self._on_change()

    def _event(self, phase: str, package: WorkerPackage, **more: str) -> None:
        self._tell("worker_package", phase=phase, package=package.digest, current=self.current, **more)
