"""Each machine that emp starts has a user of its own at Redis, as long as it is one of the fleet's.

Users are the server's: a restart without an ACL file forgets them, and a failover leaves them behind. So it is looked
each second which of them are there. A box that joined gets its user from the API, which knows that it came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from emp_orch.control.host import generation as generations
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.upkeep.script_keeper import ScriptKeeper
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.members import pool_of
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.logins import MachineLogins
from emp_orch.settings import Settings
from emp_orch.store.acl import users
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import TRANSIENT, Client, connected, within
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

EVERY_S = 1.0
# A login that may not make users is not asked each second.
REFUSED_EVERY_S = 30.0


async def withdraw_all(layout: Layout, settings: Settings | None) -> str:
    """Leave no user of a machine that emp started in a Redis that is not ours; why some are left, else empty.

    A box that joined keeps its own: it runs on.
    """
    if settings is None or settings.embedded:
        return ""
    keys = Keys(settings.prefix)
    try:
        kept = generations.kept(layout)
        machines = kept.fleet.machines if kept else ()
        pools = kept.fleet.pools if kept else {}
        boxes = {str(m.id) for m in machines if not m.traits.started}
        async with connected(settings.redis_url, owner=settings.redis_owner) as r, within():
            there = await users.granted(r, keys, settings.fleet) or frozenset()
            boxes |= {one for one in there if pool_of(one, pools)}
            await users.withdraw(r, keys, settings.fleet, *sorted(there - boxes))
    except EmpError as e:
        return f"the users of its machines stay at Redis: {e.message}"
    except TimeoutError:
        return "the users of its machines stay at Redis, which does not answer"
    return ""


class LoginKeeper:
    """Of one fleet; only the leader's does anything. `generation()` is what is in force, None while that is not known,
    and `runs()` are the machines that any runtime here knows of.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        logins: MachineLogins,
        election: LeaderElection,
        scripts: ScriptKeeper,
        *,
        name: str,
        generation: Callable[[], Generation | None],
        runs: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        self._r = r
        self._keys = keys
        self._logins = logins
        self._election = election
        self._scripts = scripts
        self._name = name
        self._generation = generation
        self._runs = runs
        self._granted: set[str] = set()
        self._sends = False
        self._told: bool | None = None
        self._looking = asyncio.Lock()

    async def keep(self) -> None:
        """Look for ever."""
        while True:
            scoped = True
            try:
                async with within():
                    scoped = await self.look()
            except TRANSIENT:
                pass  # the loop says so
            except EmpError as e:  # the key for machines cannot be read
                log.error("%s (%s)", e.message, e.hint)
                scoped = False
            await asyncio.sleep(EVERY_S if scoped else REFUSED_EVERY_S)

    async def assure(self, machine_id: str) -> None:
        """Before it is started, or told anything: it has its user, and its scripts are there. Raises what redis-py
        raises, and EmpError.
        """
        generation = self._generation()
        if machine_id not in self._granted or generation is None or not self._scripts.knows(generation):
            await self.look()

    async def look(self) -> bool:
        """Make the users that lack, remove those that are nobody's any more. False where Redis does not let us."""
        async with self._looking:
            return await self._look()

    async def _look(self) -> bool:
        generation = self._generation()
        if self._election.mandate is None or generation is None:
            self._granted.clear()  # another leader may have made others
            return True
        there = await users.granted(self._r, self._keys, self._name)
        if there is None:
            self._note(scoped=False)
            return False
        sends = await self._scripts.look(generation)
        if sends is not self._sends:
            self._sends = sends
            self._granted.clear()
            log.info("machines %s scripts of their own to Redis (docs/redis.md)", "may send" if sends else "send no")
        machines = generation.fleet.machines
        boxes = {str(m.id) for m in machines if m.traits.joins}
        ours = {str(m.id) for m in machines} - boxes
        self._granted &= there & (ours | boxes)
        scoped = await self._grant(ours - self._granted)
        if anew := (boxes & there) - self._granted:
            await users.revise(self._r, self._keys, self._name, sorted(anew), sends=sends)
            self._granted |= anew
        if strays := there - ours - boxes:
            await self._withdraw(strays)
        return scoped

    async def _grant(self, ids: Collection[str]) -> bool:
        if not ids:
            return True
        passwords = {one: self._logins.password(one) for one in sorted(ids)}
        scoped = await users.grant_all(self._r, self._keys, self._name, passwords, sends=self._sends)
        self._note(scoped=scoped)
        self._granted |= set(ids) if scoped else set()
        return scoped

    async def _withdraw(self, strays: Collection[str]) -> None:
        """Those of machines that are not named any more, once they are gone."""
        runs = await self._runs()
        for one in sorted(strays):
            # A member that joined a moment ago is in Redis before it is in what is in force here.
            member = await self._r.hexists(self._keys.members(self._name), one)
            if one not in runs and not member and not await self._r.hexists(self._keys.machines, one):
                await users.withdraw(self._r, self._keys, self._name, one)
                log.info("%s is gone, and its user at Redis", one)

    def _note(self, *, scoped: bool) -> None:
        self._logins.scoped = scoped
        if scoped is not self._told:
            self._told = scoped
            log.info(
                "each machine has a user of its own at Redis"
                if scoped
                else "machines use the fleet's own login at Redis: it may not make users (docs/redis.md, Rights)"
            )
