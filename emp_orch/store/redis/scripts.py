"""A Lua script, sent by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions as rexc

from emp_orch.store.redis.refusals import NotLoaded

# Sends one command: redis-py's execute_command, or Pipelined.call where many are on the way at once.
Call = Callable[..., Awaitable[Any]]
# Sends commands together, each a tuple; their answers.
Calls = Callable[..., Awaitable[list[Any]]]


def digest_of(text: str) -> str:
    """What Redis names a script by."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Script:
    """One script; sent when the server does not know it. Raises NotLoaded where the login may not do that."""

    def __init__(self, call: Call, text: str, keys: int = 0) -> None:
        """`keys`: how many of its arguments are its KEYS."""
        self._call = call
        self._text = text
        self._keys = keys
        self._digest = digest_of(text)

    async def __call__(self, *args: Any) -> Any:
        try:
            return await self._call("EVALSHA", self._digest, self._keys, *args)
        except rexc.NoScriptError:
            pass
        try:
            return await self._call("EVAL", self._text, self._keys, *args)
        except rexc.NoPermissionError as e:
            if "'eval'" not in str(e).lower():
                raise
            raise NotLoaded("it does not know the script, which only the fleet's login may send") from e


# Below lua/; a folder each for who submits, claims and runs jobs, for lanes, and for the reconciler: upkeep, positions.
