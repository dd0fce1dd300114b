"""Which connector each service of the applied fleet has, and which node classes: for those who check jobs before they
queue them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from time import monotonic
from typing import cast

import msgspec
from msgspec import Struct, structs

from emp_orch.errors import EmpError
from emp_orch.jobs.document.workflows import Classes, Services
from emp_orch.store.fleet.generations import read_generation, spec_mark
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.redis.client import Client, within
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys

# Whoever submits hundreds of jobs a second does not ask for each; an apply takes longer than that.
FRESH_S = 0.2
# Node classes are those of images, and change as seldom.
CLASSES_S = 10.0
# Reports that are looked into; workers of a service have the same, mostly.
SOME_WORKERS = 64


class _Connector(Struct, frozen=True):
    offers: str = ""


class _Said(Struct, frozen=True):
    """What is read of a worker's report."""

    connector_statuses: dict[str, _Connector] = {}


class KnownServices:
    """Reads the generation when it is another one, which two short answers tell; and some reports now and then."""

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._mark = ""
        self._number = 0
        self._known = Services()
        self._asked_s = self._classes_s = float("-inf")
        self._offers = OffersStore(r, keys)

    async def now(self) -> Services:
        """What is known now; nothing while no generation is in force. Raises what redis-py raises without Redis."""
        if monotonic() - self._asked_s < FRESH_S:
            return self._known
        asked_s = monotonic()
        async with within():
            mark = await spec_mark(self._r, self._keys, self._fleet, self._number)
            if mark != self._mark:
                await self._read()
            if "comfyui" in self._known.connectors.values() and asked_s - self._classes_s >= CLASSES_S:
                self._known = structs.replace(self._known, classes=await self._classes())
                self._classes_s = asked_s
        self._asked_s = asked_s
        return self._known

    async def _read(self) -> None:
        try:
            generation = await read_generation(self._r, self._keys, self._fleet)
        except EmpError:  # damaged: then nothing is known of it
            generation = None
        self._number = generation.number if generation else 0
        self._mark = await spec_mark(self._r, self._keys, self._fleet, self._number)
        services = generation.fleet.services if generation else {}
        connectors = {str(name): s.connector or "" for name, s in services.items()}
        self._known = Services(connectors=connectors, classes=self._known.classes)

    async def _classes(self) -> Mapping[str, Classes]:
        """The node classes of each service, as far as some of its workers tell."""
        _, reports = cast(tuple[int, dict[str, str]], await self._r.hscan(self._keys.workers, count=SOME_WORKERS))
        digests: defaultdict[str, set[str]] = defaultdict(set)
        for text in list(reports.values())[:SOME_WORKERS]:
            try:
                said = msgspec.json.decode(text, type=_Said)
            except DAMAGED:
                continue  # drift says so
            for service, connector in said.connector_statuses.items():
                if connector.offers:
                    digests[service].add(connector.offers)
        offers = await self._offers.of({d for some in digests.values() for d in some})
        return {
            service: Classes(
                known=frozenset().union(*(offers[d].nodes for d in some if d in offers)),
                outputs=frozenset().union(*(offers[d].outputs for d in some if d in offers)),
            )
            for service, some in digests.items()
        }
