"""The scripts that machines run are in Redis, as long as this leader looks; and whether machines may send their own."""

from __future__ import annotations

import logging
import math

from emp_orch.layout import Layout
from emp_orch.runtimes.keys import package_scripts
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl import machine_scripts
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")


class ScriptKeeper:
    """Of one fleet."""

    def __init__(self, r: Client, keys: Keys, layout: Layout) -> None:
        self._r = r
        self._keys = keys
        self._layout = layout
        self._judged: Generation | None = None
        self._until_ms = 0.0
        self._texts: tuple[str, ...] = ()

    def knows(self, in_force: Generation) -> bool:
        """Whether the last look was of this generation."""
        return self._judged is in_force

    async def look(self, in_force: Generation) -> bool:
        """Have all scripts there that machines of this generation may run. True while they may send others, too.

        Raises what redis-py raises, and EmpError.
        """
        if not self.knows(in_force):
            await self._judge(in_force)
        if not await machine_scripts.are_loaded(self._r, self._texts):
            await machine_scripts.load(self._r, self._texts)
            log.info("the scripts that machines run are loaded into Redis")
        if 0 < self._until_ms < math.inf and await time_ms(self._r) >= self._until_ms:
            self._until_ms = 0
        return self._until_ms > 0

    async def _judge(self, in_force: Generation) -> None:
        known = package_scripts.brought(self._layout, self._keys.prefix)
        fleet = in_force.fleet.name
        self._until_ms = await machine_scripts.sent_until_ms(
            *(self._r, self._keys, SigningKey(self._layout, fleet).control()),
            *(in_force, await time_ms(self._r), known.__contains__),
        )
        own = machine_scripts.own_texts(self._keys)
        self._texts = tuple(
            dict.fromkeys((*own, *machine_scripts.FORMER, *(t for texts in known.values() for t in texts)))
        )
        self._judged = in_force
