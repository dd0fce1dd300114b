"""The story of a drift, read from the status and the journal. It only reads."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from emp_orch.fleet.drift.exits import words_of
from emp_orch.fleet.journal.advice import advice
from emp_orch.fleet.journal.drift_story import DriftStory, closed_keys, drift_story, meant
from emp_orch.store.fleet.journal_reads import MAX_SCANNED, Wanted, page
from emp_orch.store.fleet.status import FleetStatus
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import read_machine


class Explained(Struct, frozen=True, kw_only=True):
    """A story with what a person can do about it; nothing for a drift that has closed. `words`: the last lines of the
    program that it is about, where its cause does not have all of them."""

    story: DriftStory
    can_do: tuple[str, ...]
    words: tuple[str, ...] = ()


class DriftStories:
    """Stories of one fleet's drift. The journal is read to its beginning, which its cap bounds."""

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet

    async def of(self, key: str, status: FleetStatus | None) -> Explained | None:
        """The story of drift `key`; None when neither the status nor the journal knows it."""
        item = next((i for i in status.drift if i.drift.key == key), None) if status else None
        machine_id = [*key.split("/", 2), ""][1]
        about = await page(self._r, self._keys, self._fleet, Wanted(machine_id=machine_id), MAX_SCANNED)
        found = drift_story(key, item, about.entries)
        if found is None:
            return None
        can_do = advice(item, status.overrides) if item and status else ()
        words: tuple[str, ...] = ()
        if item is not None and item.drift.program is not None:
            words = words_of(await read_machine(self._r, self._keys, machine_id), item.drift.program)
        return Explained(story=found, can_do=can_do, words=words)

    async def meant(self, words: Sequence[str], status: FleetStatus | None) -> list[str]:
        """The keys of the drifts that a person may mean by `words`."""
        standing = [i.drift.key for i in status.drift] if status else []
        return meant(words, standing, await self.closed())

    async def closed(self) -> list[str]:
        """The keys of drifts that have closed, the latest first."""
        wanted = Wanted(types=frozenset({"drift_closed"}))
        return closed_keys((await page(self._r, self._keys, self._fleet, wanted, MAX_SCANNED)).entries)
