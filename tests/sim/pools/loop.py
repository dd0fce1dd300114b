"""An event loop whose time goes on only when nobody has anything to do: asyncio's own code, and no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from unittest import mock


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is seconds since it was made."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def end(self) -> None:
        """Cancel whatever is under way, and close."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.close()

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now_s = max(self._now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@contextmanager
def virtual(loop: VirtualLoop, now_ms: Callable[[], int], chance: Random) -> Iterator[None]:
    """Clocks and chance of this process are those of the simulated world: the same history is the same again."""
    with (
        mock.patch("time.monotonic", loop.time),
        mock.patch("time.time", lambda: now_ms() / 1000),
        mock.patch("secrets.token_bytes", chance.randbytes),
    ):
        yield
