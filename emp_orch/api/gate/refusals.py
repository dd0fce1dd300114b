"""What boxes were refused: counted, logged, told as an event; and who keeps asking is shut out for a while."""

from __future__ import annotations

import logging
import time
from collections import Counter

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


class Refusals:
    """Of all boxes."""

    def __init__(self, events: Events, stats: ApiStats) -> None:
        self._stats = stats
        self._events = events
        self._rates = Rates(burst=REFUSALS, per_s=REFUSALS_PER_S, most=MOST_MACHINES)
        self._untold: Counter[str] = Counter()
        self._told_s: dict[str, float] = {}
        self._out_until_s: dict[str, float] = {}

    async def note(self, machine_id: str, command: str, why: str) -> bool:
        """One more. Whether the machine has been refused too often, and is to be shut out."""
        now_s = time.monotonic()
        self._stats.gate_refused += 1
        self._untold[machine_id] += 1
        if now_s - self._told_s.get(machine_id, float("-inf")) >= NOTED_EVERY_S:
            self._told_s[machine_id] = now_s
            await self._tell(machine_id, command, why, self._untold.pop(machine_id))
        if self._rates.take(machine_id, now_s) == 0:
            return False
        self._out_until_s[machine_id] = now_s + OUT_S
        return True

    def shut_out(self, machine_id: str, now_s: float) -> float:
        """For how long it is to stay away still."""
        left_s = self._out_until_s.get(machine_id, now_s) - now_s
        if left_s <= 0:
            self._out_until_s.pop(machine_id, None)
        return max(left_s, 0.0)

    async def _tell(self, machine_id: str, command: str, why: str, count: int) -> None:
        log.warning(
            "refused %s of machine %s at the gate: %s (%d since it was last told)", command, machine_id, why, count
        )
        try:
            async with within():
                await self._events.append(GATE_REFUSED, machine_id=machine_id, command=command, error=why, count=count)
        except TRANSIENT as e:
            log.warning("it is told nowhere else: %s", e or type(e).__name__)
