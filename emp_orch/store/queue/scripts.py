"""The queue's scripts for one prefix, sent by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from redis import exceptions as rexc

from emp_orch.store.queue.lua import jobs as lua
from emp_orch.store.queue.lua import positions as places
from emp_orch.store.queue.lua import upkeep as care
from emp_orch.store.queue.lua.prelude import compose, numbers
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
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


@lru_cache(maxsize=16)
def _texts(keys: Keys, limits: tuple[int, ...]) -> dict[str, str]:
    scripts = {name: text for module in (lua, care, places) for name, text in vars(module).items()}
    return {name: compose(keys, text) for name, text in scripts.items() if name.isupper() and name[0] != "_"}


def all_texts(keys: Keys) -> dict[str, str]:
    """Each of them by name."""
    return _texts(keys, tuple(numbers().values()))


class Scripts:
    """All of them."""

    def __init__(self, r: Client, keys: Keys, call: Call | None = None, sure: Call | None = None) -> None:
        """`sure` sends what must not be lost: submissions and ends."""
        send: Call = call or r.execute_command
        sure = sure or send
        texts = all_texts(keys)
        self.submit = Script(sure, texts["SUBMIT"])
        self.submit_one = Script(sure, texts["SUBMIT_ONE"])
        self.next = Script(send, texts["NEXT"])
        self.next_after_waiting = Script(send, texts["NEXT_AFTER_WAITING"])
        self.unclaim = Script(send, texts["UNCLAIM"])
        self.new_lanes = Script(send, texts["NEW_LANES"])
        self.register = Script(send, texts["REGISTER"])
        self.retire = Script(send, texts["RETIRE"])
        self.renew = Script(send, texts["RENEW"])
        self.progress = Script(send, texts["PROGRESS"])
        self.began = Script(send, texts["BEGAN"])
        self.secrets_of = Script(send, texts["SECRETS_OF"])
        self.end = Script(sure, texts["END"])
        self.ran = Script(send, texts["RAN"])
        self.cooled = Script(send, texts["COOLED"])
        self.lacks = Script(send, texts["LACKS"])
        self.adopt = Script(send, texts["ADOPT"])
        self.cancel = Script(send, texts["CANCEL"])
        self.retry = Script(send, texts["RETRY"])
        self.leave = Script(send, texts["LEAVE"])
        self.sweep = Script(send, texts["SWEEP"])
        self.judge = Script(send, texts["JUDGE"])
        self.forget = Script(send, texts["FORGET"])
        self.trim = Script(send, texts["TRIM"])
        self.places = Script(send, texts["PLACES"])
        self.without_record = Script(send, texts["WITHOUT_RECORD"])
        self.match_anew = Script(send, texts["MATCH_ANEW"])
        self.strays = Script(send, texts["STRAYS"])
        self.put_back = Script(send, texts["PUT_BACK"])
