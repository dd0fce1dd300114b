"""A small engine whose boxes are processes that sleep: real ones, which end, are killed, and are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError


class Sleepers:
    """`refuses`: what it says to whoever asks for a box; `silent`: it says nothing at all. `lost`: its word that a box
    started is lost on the way, and this is called meanwhile. `keeps`: it gives none back. `slow`: it
    takes the word that a box goes, and has it still.
    """

    def __init__(self) -> None:
        self.boxes_of: dict[MachineId, asyncio.subprocess.Process] = {}
        self.launched: list[Launch] = []
        self.refuses = ""
        self.silent = False
        self.keeps = False
        self.slow = False
        self.lost: Callable[[MachineId], Awaitable[None]] | None = None
        self._changed: Callable[[], None] = lambda: None
        self._watched: list[asyncio.Task[None]] = []

    def made(self, kind: str, making: Making) -> Sleepers:
        """As the registry gives a provider."""
        return self

    async def boxes(self) -> tuple[Box, ...]:
        if self.silent:
            raise ProviderError("the engine is away")
        return tuple(
            Box(member_id=i, state=BoxState.RUNNING, ref=str(p.pid))
            if p.returncode is None
            else Box(member_id=i, state=BoxState.ENDED, ref=str(p.pid), words=f"it ended with {p.returncode}")
            for i, p in self.boxes_of.items()
        )

    async def create(self, launch: Launch) -> None:
        if self.refuses:
            raise ProviderError(f"{self.refuses} ({launch.token})")
        if launch.member_id in self.boxes_of:
            return
        self.launched.append(launch)
        await self.start(launch.member_id)
        if self.lost is not None:
            await self.lost(launch.member_id)
            raise ProviderError("the way to the engine is cut")

    async def start(self, member_id: MachineId) -> None:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        self.boxes_of[member_id] = process
        self._watched.append(asyncio.create_task(self._tell(process)))
        self._changed()

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        if self.keeps:
            raise ProviderError("the engine is away")
        process = self.boxes_of.get(member_id)
        if process is None or self.slow:
            return
        if process.returncode is None:
            process.terminate()
            await process.wait()
        self.boxes_of.pop(member_id, None)
        self._changed()

    async def kill(self, member_id: MachineId) -> None:
        """Its box ends by itself."""
        self.boxes_of[member_id].kill()
        await self.boxes_of[member_id].wait()

    async def watch(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass

    async def end(self) -> None:
        """No box is left."""
        self.keeps = self.slow = False
        for member_id in list(self.boxes_of):
            await self.remove(member_id, stop_s=0.0)
        await asyncio.gather(*self._watched)

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._changed()
