"""Which connector each service of the applied fleet has: for those who check jobs before they queue them."""

from __future__ import annotations

from time import monotonic

from emp_orch.errors import EmpError
from emp_orch.jobs.workflows import Services
from emp_orch.store.connect import Client, within
from emp_orch.store.generations import generation_mark, read_generation
from emp_orch.store.keys import Keys

# Whoever submits hundreds of jobs a second does not ask for each; an apply takes longer than that.
FRESH_S = 0.2


class KnownServices:
    """Reads the generation when it is another one, which two short answers tell."""

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._mark = ""
        self._number = 0
        self._known = Services()
        self._asked_s = float("-inf")

    async def now(self) -> Services:
        """What is known now; nothing while no generation is in force. Raises what redis-py raises without Redis."""
        if monotonic() - self._asked_s < FRESH_S:
            return self._known
        asked_s = monotonic()
        async with within():
            mark = await generation_mark(self._r, self._keys, self._fleet, self._number)
            if mark != self._mark:
                await self._read()
        self._asked_s = asked_s
        return self._known

    async def _read(self) -> None:
        try:
            generation = await read_generation(self._r, self._keys, self._fleet)
        except EmpError:  # damaged: then nothing is known of it
            generation = None
        self._number = generation.number if generation else 0
        self._mark = await generation_mark(self._r, self._keys, self._fleet, self._number)
        services = generation.fleet.services if generation else {}
        self._known = Services(connectors={str(name): s.connector or "" for name, s in services.items()})
