"""One pool's engine, looked at beside the rounds: at once when it says that something changed, else every few seconds.

What it does not answer is unknown, and holds up no other pool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from emp_orch import again
from emp_orch.control.pools.former import Looked
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import Fleet, MachineId, Pool
from emp_orch.fleet.model.pools import MAX_WORDS, SeenPool
from emp_orch.layout import Layout
from emp_orch.render.box import stop_grace_s
from emp_orch.runtimes.providers.base import Making, Provider, ProviderError
from emp_orch.runtimes.providers.registry import load
from emp_orch.settings import Settings

log = logging.getLogger("reconcile")

LOOK_EVERY_S = 3.0
# Between two looks at an engine that tells of one change after another.
SETTLED_S = 0.2
ANSWER_S = 30.0
# What an engine may take beyond a box's own time to end.
ENDED_MARGIN_S = 10.0
# Who is not asked about it for so long leads no more: nobody looks meanwhile.
UNASKED_S = 30.0

Load = Callable[[str, Making], Provider | None]


class Engine:
    """`changed` is called when what is seen is another than before."""

    def __init__(self, pool: Pool, making: Making, changed: Callable[[], None], load: Load = load) -> None:
        self.pool = pool
        self._making = making
        self._changed = changed
        self._load = load
        self._provider: Provider | None = None
        self._looked = Looked()
        self.retired_s = 0.0
        self._again = asyncio.Event()
        self._asked = asyncio.Event()
        self._asked_s = 0.0

    @property
    def looked(self) -> Looked:
        """The last look. Whoever asks keeps it looking."""
        self._asked_s = time.monotonic()
        self._asked.set()
        return self._looked

    def retire(self) -> None:
        """It is asked for no more boxes from now on."""
        self.retired_s = time.monotonic()

    def provider(self) -> Provider:
        """Made when it is first needed. Raises ProviderError where that cannot be."""
        if self._provider is None:
            self._provider = self._load(self.pool.provider, self._making)
        if self._provider is None:
            raise ProviderError(f"the boxes of pool {self.pool.name} are started by somebody else")
        return self._provider

    def look_again(self) -> None:
        self._again.set()

    async def keep(self) -> None:
        """Look, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(again.for_ever(self._watch, f"watch pool {self.pool.name}", log))
                group.create_task(again.for_ever(self._looks, f"look at pool {self.pool.name}", log))
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._provider is None:
            return
        try:
            await self._provider.aclose()
        except Exception as e:  # noqa: BLE001  # another's code
            log.warning("the provider of pool %s: %s", self.pool.name, words_of(e))

    async def _looks(self) -> None:
        while True:
            if time.monotonic() - self._asked_s > UNASKED_S:
                self._asked.clear()
                await self._asked.wait()
            began_s, before = time.monotonic(), self._looked.seen
            seen = await self._look()
            self._looked = Looked(seen=seen, began_s=began_s, ended_s=time.monotonic())
            if seen != before:
                self._changed()
            await asyncio.sleep(SETTLED_S)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._again.wait()
            except TimeoutError:
                continue
            self._again.clear()

    async def _look(self) -> SeenPool:
        try:
            async with asyncio.timeout(ANSWER_S):
                boxes = await self.provider().boxes()
        except Exception as e:  # noqa: BLE001  # another's code: what it could not say is unknown
            return SeenPool(error=words_of(e))
        return SeenPool(boxes=tuple(sorted(boxes, key=lambda b: b.member_id)))

    async def _watch(self) -> None:
        await self.provider().watch(self._again.set)


def making_of(pool: Pool, fleet: str, layout: Layout, settings: Settings) -> Making:
    """What the provider of `pool` is made from."""
    return Making(fleet=fleet, pool=pool.name, options=pool.options, folder=str(layout.state), hosts=settings.hosts)


def box_stop_s(fleet: Fleet, pool: Pool) -> float:
    """How long a box of `pool` may take to end in good order, as a container of emp may."""
    return stop_grace_s(desired_machine(fleet, machine_of_member(pool, MachineId(f"{pool.name}-x"))))


def words_of(e: BaseException) -> str:
    """What an engine, or the way to it, said: one line, bounded."""
    if isinstance(e, EmpError):
        said = f"{e.message} ({e.hint})" if e.hint else e.message
    elif isinstance(e, TimeoutError):
        said = "it did not answer in time"
    else:
        said = f"{type(e).__name__}: {e}"
    return " ".join(said.split())[:MAX_WORDS]
