"""How much of Redis one machine may take up. By names of its own choice, which Redis keeps for an hour: classes of
workers, models, and documents of what services offer: without a bound one box fills Redis, or has each submission walk
through its classes. And by what all wait for, or are told: a script that walks through all held jobs, and bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from emp_orch.api.gate.refusals import MOST_MACHINES
from emp_orch.store.queue.limits import CLASS_KEPT_MS
from emp_orch.web.rate import Rates

# In the time that Redis keeps one. A worker is of another class when lanes ask what none asked before, or it has more.
MOST_CLASSES = 256
MOST_MODELS = 4_096
# A machine sends what its services offer when that is new, a megabyte at most as a rule.
OFFERED_KIB, OFFERED_KIB_PER_S = 32_768, 8.0
# A claim whose answer was lost is given back so: each worker has one at a time, when Redis or the API was away.
COSTLY, COSTLY_PER_S = 200, 4.0
# Of all connections of a machine together: pictures are most of it. Readers of events and pictures keep up with that.
SENT_KIB, SENT_KIB_PER_S = 65_536, 8_192.0


class Names:
    """How many names each machine used lately; of the machines that used one longest ago it forgets."""

    def __init__(self, most: int, for_s: float = CLASS_KEPT_MS / 1000, machines: int = MOST_MACHINES) -> None:
        self._most, self._for_s, self._machines = most, for_s, machines
        self._of: OrderedDict[str, OrderedDict[bytes, float]] = OrderedDict()

    def take(self, machine_id: str, name: bytes, now_s: float) -> bool:
        """Whether the machine may use this name, too."""
        used = self._of.setdefault(machine_id, OrderedDict())
        self._of.move_to_end(machine_id)
        if len(self._of) > self._machines:
            self._of.popitem(last=False)
        while used and now_s - next(iter(used.values())) >= self._for_s:
            used.popitem(last=False)
        if name not in used and len(used) >= self._most:
            return False
        used[name] = now_s
        used.move_to_end(name)
        return True


class Budgets:
    """Of all machines. `clock` tells seconds, and only rises."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._classes = Names(MOST_CLASSES)
        self._models = Names(MOST_MODELS)
        self._offered = Rates(burst=OFFERED_KIB, per_s=OFFERED_KIB_PER_S, most=MOST_MACHINES)
        self._costly = Rates(burst=COSTLY, per_s=COSTLY_PER_S, most=MOST_MACHINES)
        self._sent = Rates(burst=SENT_KIB, per_s=SENT_KIB_PER_S, most=MOST_MACHINES)

    def wait_s(self, machine_id: str, size: int) -> float:
        """It sends `size` bytes: how long it is to wait with them."""
        return self._sent.owe(machine_id, self._clock(), size / 1024)

    def has_costly(self, machine_id: str) -> bool:
        return self._costly.take(machine_id, self._clock()) == 0

    def has_class(self, machine_id: str, name: bytes) -> bool:
        return self._classes.take(machine_id, name, self._clock())

    def has_model(self, machine_id: str, name: bytes) -> bool:
        return self._models.take(machine_id, name, self._clock())

    def offers(self, machine_id: str, size: int) -> bool:
        """Whether it may leave a document of `size` bytes now."""
        return self._offered.take(machine_id, self._clock(), size / 1024) == 0
