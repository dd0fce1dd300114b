"""The generation in force, for who acts by it: read and opened again only when two short answers say it is another."""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.seals import Seal
from emp_orch.store.fleet.generations import Generation, current_number, read_numbered, spec_mark
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class InForce:
    """Of one fleet, as emp.yaml has it: without members. `seal` gives the fleet's key as it is now."""

    def __init__(self, r: Client, keys: Keys, fleet: str, seal: Callable[[], Seal | None]) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._seal = seal
        self._mark = ""
        self._known: Generation | None = None

    async def now(self) -> Generation | None:
        """The same object as long as it is the same generation; None when none was published. Raises Forged, EmpError
        for a damaged one, and what redis-py raises.
        """
        known = self._known
        if known is not None and await self._mark_of(known.number) == self._mark:
            return known
        number = await current_number(self._r, self._keys, self._fleet)
        mark = await self._mark_of(number)  # first: what changes meanwhile is read again
        found = await read_numbered(self._r, self._keys, self._fleet, number, self._seal()) if number else None
        self._mark, self._known = mark, found
        return found

    async def _mark_of(self, number: int) -> str:
        return await spec_mark(self._r, self._keys, self._fleet, number)
