"""What is to run for ever goes on through an error that nobody foresaw: told with its traceback, and waited out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

AFTER_S = 5.0


async def for_ever(part: Callable[[], Coroutine[object, object, None]], what: str, log: logging.Logger) -> None:
    """Run `part` until it returns or is cancelled; begin it anew a moment after it failed."""
    told = ""
    while True:
        try:
            await part()
            return
        except Exception as e:
            words = f"{type(e).__name__}: {e}"[:1000]
            if words != told:  # one that comes again and again fills no disk
                log.exception("%s failed; it begins anew in %g s", what, AFTER_S)
            told = words
        await asyncio.sleep(AFTER_S)
