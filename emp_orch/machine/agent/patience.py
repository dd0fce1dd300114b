"""When a box that the API told to wait asks again: as long as it said, else twice as long each time."""

from __future__ import annotations

import re

LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
# Those that were turned away together do not come together again: up to so much later.
SPREAD = 0.5


class Patience:
    """Of one box. Times are seconds of a clock that only rises; `jitter` is from 0 to 1."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._wait_s = 0.0

    def waits(self, now_s: float) -> bool:
        """Whether the API is to be left alone still."""
        return now_s < self._until_s

    def told_to_wait(self, after: str, now_s: float, jitter: float) -> None:
        """`after`: its header Retry-After. What was asked before the first of several such answers is one try."""
        said_s = float(after) if re.fullmatch("[0-9]{1,9}", after, re.ASCII) else 0.0
        if not self.waits(now_s):
            self._wait_s = min(max(2 * self._wait_s, LEAST_WAIT_S), MOST_WAIT_S)
        wait_s = min(max(said_s, LEAST_WAIT_S), MOST_WAIT_S) if said_s else self._wait_s
        self._until_s = max(self._until_s, now_s + wait_s * (1 + SPREAD * jitter))

    def let_in(self) -> None:
        """The next wait is a short one again."""
        self._wait_s = 0.0
