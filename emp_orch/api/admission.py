"""So many downloads or uploads at once, and no more: one too many is told when to come again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from emp_orch.web.errors import Refused

DOWNLOADS = 8
UPLOADS = 32
# One machine does not keep the others out.
UPLOADS_OF_ONE = 8
RETRY_AFTER_S = 2


class ConcurrencyLimit:
    """One process' own, for what is called `what`: `most` at once, `each` at most of one who asks."""

    def __init__(self, most: int, what: str, *, each: int = 0) -> None:
        self._free = most
        self._what = what
        self._each = each or most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def admit(self, who: str = "") -> Iterator[None]:
        """Raises Refused (429) when there is none."""
        if self._free == 0 or self._taken[who] == self._each:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise Refused(429, f"too many {self._what} at once; come again", headers=headers)
        self._free -= 1
        self._taken[who] += 1
        try:
            yield
        finally:
            self._free += 1
            self._taken -= Counter((who,))  # what comes to nothing is forgotten
