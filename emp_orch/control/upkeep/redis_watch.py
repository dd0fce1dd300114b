"""What the reconciler notices of Redis itself: jobs that it lost, keys that it evicts, replicas that are missing.

Every reconciler counts, also those that stand by. What was counted last is kept in the fleet's folder: somebody outside
of Redis must remember it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from msgspec import Struct

from emp_orch.control.upkeep.evictions import Evictions, evictions
from emp_orch.control.upkeep.replicas import Replicas, replicas
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.observed import DamagedKey
from emp_orch.jobs.outcome.losses import Count, How, Loss, lost
from emp_orch.layout import Layout
from emp_orch.settings import Settings, write_private
from emp_orch.store import contract
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.fleet.status import RedisStatus
from emp_orch.store.queue.upkeep.losses import Losses
from emp_orch.store.queue.upkeep.positions import Positions
from emp_orch.store.redis.client import TRANSIENT, Client, address, within
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

EVERY_S = 1.0
SHOWN_IDS = 5
EVICTIONS_EVERY_S = 10.0
DAMAGE_EVERY_S = 5.0
# Keys that go on being evicted are told again after this; so long they are shown after the last.
EVICTED_AGAIN_MS = 600_000

Write = Callable[[list[Entry]], Awaitable[None]]


class Kept(Struct, frozen=True, kw_only=True):
    """The last count, and of which Redis: one of another address or prefix has other jobs."""

    place: str
    count: Count


def server_of(settings: Settings) -> str:
    """Which Redis holds the jobs, whatever port an embedded one has."""
    return f"{'embedded' if settings.embedded else address(settings.redis_url)} {settings.prefix}"


class RedisWatch:
    """`status` is what was noticed; `write` takes entries of the journal while this reconciler leads."""

    def __init__(self, r: Client, keys: Keys, layout: Layout, settings: Settings, write: Write) -> None:
        self.status = RedisStatus()
        self.damaged: tuple[DamagedKey, ...] = ()
        self._r, self._keys, self._fleet = r, keys, settings.fleet
        self._losses = Losses(r, keys, settings.fleet)
        self._places = Positions(r, keys)
        self._path = layout.counted
        self._place = server_of(settings)
        self._write = write
        self._before = self._kept()
        self._saved: Count | None = None
        self._failing = False
        self._last: Loss | None = None
        self._evictions: Evictions | None = None
        self._wanted = settings.replicas
        self._replicas: Replicas | None = None
        self._alone_told = False
        self._evicted_ms = 0
        self._told_ms = 0

    async def keep(self) -> None:
        """Look for ever."""
        rounds = 0
        while True:
            try:
                async with within():
                    await self.look()
                    if rounds % round(EVICTIONS_EVERY_S / EVERY_S) == 0:
                        await self.look_for_replicas()
                        await self.look_for_evictions()
                rounds += 1
            except TRANSIENT:
                pass  # the loop says so, or `guard`
            except NotLeader:
                rounds += 1
            await asyncio.sleep(EVERY_S)

    async def guard(self) -> None:
        """Look for damage, for ever."""
        while True:
            with suppress(*TRANSIENT):
                async with within():
                    await self.look_for_damage()
            await asyncio.sleep(DAMAGE_EVERY_S)

    async def look(self) -> None:
        """Count once; tell what is gone since the last count."""
        looked = await self._losses.look()
        now, before = looked.count, self._before
        self._last = looked.last
        loss = lost(before, now) if before is not None else None
        if loss is not None and loss.how is How.REMOVED:  # the keys beside the records may still name them
            loss = msgspec.structs.replace(loss, ids=await self._places.without_record(SHOWN_IDS))
        if loss is not None and await self._losses.tell(loss, now):
            log.error("%s; they were there %.1f s before", loss.words, (loss.at_ms - loss.seen_ms) / 1000)
            looked = await self._losses.look()
            now, self._last = looked.count, looked.last
        self._before = now
        await self._save(now)
        self._note(now.at_ms)

    async def look_for_damage(self) -> tuple[DamagedKey, ...]:
        """Look once at all keys. What heals, as a stream that nothing could follow, is put right and told; the rest is
        drift, for a person: another program may use that key."""
        found = await contract.look(self._r, self._keys, self._fleet)
        heals = [one for one in found if one.heals]
        if heals:
            done = await contract.quarantine(self._r, self._keys, self._fleet, heals)
            for one, words in zip(heals, done, strict=True):
                log.error("%s had %s where emp keeps %s; %s", one.key, one.found, one.expected, words)
            with suppress(NotLeader):
                reason = "; ".join(done)
                await self._write([("redis_repaired", {"reason": reason, "hint": "find who writes there beside emp"})])
        self.damaged = tuple(one for one in found if not one.heals)
        return self.damaged

    async def look_for_replicas(self) -> None:
        """Look once; tell when fewer follow than are wanted, and when they do again."""
        if not self._wanted:
            return
        self._replicas = await replicas(self._r)
        self._note(self._before.at_ms if self._before else 0)
        alone = self.status.alone
        if bool(alone) != self._alone_told:
            told = {"reason": alone} if alone else {"reason": f"{self.status.replicas} replicas follow Redis again"}
            await self._write([("redis_replicas", told)])
            self._alone_told = bool(alone)

    async def look_for_evictions(self) -> None:
        """Look once; tell keys that were evicted since the last look. Raises NotLeader when another leads."""
        now, before = await evictions(self._r), self._evictions
        self._evictions = now
        at_ms = self._before.at_ms if self._before else 0
        if before is not None and now.evicted > before.evicted:
            self._evicted_ms = at_ms
        self._note(at_ms)
        if self._evicted_ms == at_ms != 0 and at_ms - self._told_ms >= EVICTED_AGAIN_MS:
            self._told_ms = at_ms
            await self._write([("redis_evicted", {"reason": self.status.eviction, "hint": self.status.way_out})])

    def _note(self, now_ms: int) -> None:
        found = self._evictions or Evictions()
        lately = self._evicted_ms != 0 and now_ms - self._evicted_ms < EVICTED_AGAIN_MS
        shown = found.policy != "" or lately
        self.status = RedisStatus(
            lost=self._last,
            policy=found.policy,
            evicts=shown,
            evicted=found.evicted if shown else 0,
            replicas=self._replicas.following if self._replicas else self._wanted,
            wanted=self._wanted,
        )

    def _kept(self) -> Count | None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return None
        return kept.count if kept.place == self._place else None

    async def _save(self, now: Count) -> None:
        """On disk, when the jobs are others than those kept there."""
        if self._saved is not None and _same_jobs(self._saved, now):
            return
        text = msgspec.json.encode(Kept(place=self._place, count=now))
        try:
            await asyncio.to_thread(write_private, self._path, text)
        except OSError as e:
            if not self._failing:  # once, not each second
                log.warning(
                    "cannot write %s: %s; what Redis loses from now on is known until we end", self._path, e.strerror
                )
            self._failing = True
            return
        self._failing, self._saved = False, now


def _same_jobs(a: Count, b: Count) -> bool:
    fixed = {"at_ms": 0, "looks": 0}
    return msgspec.structs.replace(a, **fixed) == msgspec.structs.replace(b, **fixed)
