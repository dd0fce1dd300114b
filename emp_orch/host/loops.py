"""The event loop of the daemons that pass messages on: uvloop's, which takes half the time for a turn of the loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# New objects between two collections, and how many of those between two of older ones. A message makes hundreds, nearly
# all of which go by themselves.
GARBAGE = (10_000, 10, 10)


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run. An image or a box of an older emp may not have uvloop, and gets a worker package of this one.

    What was imported lives as long as the process, and is not looked through for garbage again.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
