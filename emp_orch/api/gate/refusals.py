"""What boxes were refused: counted, logged, told as an event; and who keeps asking is shut out for a while."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from emp_orch.api.state import ApiStats
from emp_orch.store.fleet.events import GATE_REFUSED, Events
from emp_orch.store.redis.client import TRANSIENT, within
from emp_orch.web.rate import Rates

log = logging.getLogger(__name__)

# Of one machine: one that errs is refused now and then, one that tries things out far oftener.
REFUSALS, REFUSALS_PER_S = 50, 1.0
MOST_MACHINES = 10_000
NOTED_EVERY_S = 10.0
OUT_S = 30.0


@dataclass(slots=True)
class _Known:
    """Of one machine: how many it is not told of, when it was told of last, until when it is out."""

    untold: int = 0
    told_s: float = float("-inf")
    out_until_s: float = float("-inf")


class Refusals:
    """Of all boxes; those that were refused longest ago are forgotten, beyond `most`."""

    def __init__(self, events: Events, stats: ApiStats, most: int = MOST_MACHINES) -> None:
        self._stats = stats
        self._events = events
        self._most = most
        self._rates = Rates(burst=REFUSALS, per_s=REFUSALS_PER_S, most=most)
        self._of: OrderedDict[str, _Known] = OrderedDict()

    def __len__(self) -> int:
        """Of how many machines anything is known."""
        return len(self._of)

    async def note(self, machine_id: str, command: str, why: str) -> bool:
        """One more. Whether the machine has been refused too often, and is to be shut out."""
        now_s = time.monotonic()
        self._stats.gate_refused += 1
        known = self._of.setdefault(machine_id, _Known())
        self._of.move_to_end(machine_id)
        if len(self._of) > self._most:
            self._of.popitem(last=False)
        known.untold += 1
        is_out = self._rates.take(machine_id, now_s) > 0
        if is_out:
            known.out_until_s = now_s + OUT_S
        if now_s - known.told_s >= NOTED_EVERY_S:
            count, known.untold, known.told_s = known.untold, 0, now_s
            await self._tell(machine_id, command, why, count)
        return is_out

    def shut_out(self, machine_id: str, now_s: float) -> float:
        """For how long it is to stay away still."""
        known = self._of.get(machine_id)
        return max(known.out_until_s - now_s, 0.0) if known is not None else 0.0

    async def _tell(self, machine_id: str, command: str, why: str, count: int) -> None:
        log.warning(
            "refused %s of machine %s at the gate: %s (%d since it was last told)", command, machine_id, why, count
        )
        try:
            async with within():
                await self._events.append(GATE_REFUSED, machine_id=machine_id, command=command, error=why, count=count)
        except TRANSIENT as e:
            log.warning("it is told nowhere else: %s", e or type(e).__name__)
