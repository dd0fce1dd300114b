"""So many downloads at once, and no more: whoever finds no place is told when to come again."""

from __future__ import annotations

from emp_orch.web.errors import Refused

AT_ONCE = 8
RETRY_AFTER_S = 2


class Downloads:
    """The places for downloads: one process' own."""

    def __init__(self, places: int = AT_ONCE) -> None:
        self._free = places

    def __enter__(self) -> None:
        if self._free == 0:
            raise Refused(429, "too many downloads at once; come again", headers={"Retry-After": str(RETRY_AFTER_S)})
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1
