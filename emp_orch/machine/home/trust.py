"""What a machine takes for an order of its fleet: sealed by its own key, and newer than the last (docs/adr/0033).

The key is a file that the machine's runtime, or its own join, puts into its folder. Whoever can write in Redis can
repeat what was said before, or say what they like; neither is carried out, and the machine's report tells of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.seals import CommandKey, Forged, OtherKey, Stamp
from emp_orch.store.fleet.commands import StampedCommand, opened
from emp_orch.store.fleet.configs import MachineConfig, read_config
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("agent")

# So long after the last one the report tells of forged commands.
TOLD_S = 600.0
# Between two questions to the API for another key.
ASK_S = 60.0
# What is sealed by another key may be ahead of that key's file.
ON_ITS_WAY_S, LOOK_S = 3.0, 0.25
MAX_FORGED = 200

T = TypeVar("T")

_HINT = "`emp apply` gives it one; a box that joined gets it when it joins again"


ANEW = "`emp keys rotate` lets machines take orders of any epoch again"


class OutOfDate(Forged):
    """Said by this fleet, and under an epoch that has passed: repeated by somebody, or by a leader whose Redis forgot
    the epochs before its own.
    """

    def __init__(self, command: StampedCommand, lowest: Stamp) -> None:
        super().__init__(f"epoch {command.epoch} is older than {lowest.epoch}", hint=ANEW)
        self.command = command


class NoKey(EmpError):
    """The machine was given no key: it takes no commands from Redis."""


class Floor(Struct, frozen=True, kw_only=True):
    """The last order that was taken: its stamp, and the name of the key that it was sealed by."""

    key: str = ""
    stamp: Stamp = Stamp()


def read_key(path: Path, machine_id: str) -> CommandKey:
    """Raises NoKey."""
    try:
        key = msgspec.json.decode(path.read_bytes(), type=CommandKey)
        bool(key.seal)  # one that is none is found here
    except FileNotFoundError:
        raise NoKey(f"there is no {path}: {machine_id} has no key to know its orders by", hint=_HINT) from None
    except OSError as e:
        raise NoKey(f"{path} cannot be read: {e.strerror}", hint=_HINT) from e
    except (ValueError, msgspec.MsgspecError):
        raise NoKey(f"{path} is damaged", hint=_HINT) from None
    if key.machine != machine_id:
        raise NoKey(f"{path} is the key of {key.machine}, and this is {machine_id}", hint=_HINT)
    return key


def _times(count: int) -> str:
    """In steps: what comes by the thousand must not make a thousand reports."""
    steps = [n for n in (10, 100, 1_000) if count > n]
    return f"more than {steps[-1]} times" if steps else "once" if count == 1 else f"{count} times"


class Trust:
    """One machine's. `key` reads its key, anew each time: a rotation replaces it. `renew` has it replaced, where the
    machine can ask for that itself; `changed` is called when `words` are others.
    """

    def __init__(
        self,
        key: Callable[[], CommandKey],
        floor: Floor,
        *,
        renew: Callable[[], Awaitable[object]] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.floor = floor
        self._key = key
        self._renew = renew
        self._changed = changed
        self._forged = 0
        self._last = ""
        self._told_until_s = 0.0
        self._ask_at_s = 0.0
        self._wait_at_s = 0.0

    @property
    def words(self) -> str:
        """What was forged lately, for the report; empty when nothing was."""
        if time.monotonic() >= self._told_until_s:
            self._forged = 0
            return ""
        return f"{_times(self._forged)}; the last: {self._last}"

    async def command(self, text: str) -> StampedCommand:
        """The command in `text`, to be carried out now. Raises Forged, NoKey, EmpError for one that does not fit."""

        async def look(key: CommandKey) -> StampedCommand:
            found = opened(text, key)
            lowest = self._lowest(key)
            if found.stamp <= lowest:
                if found.epoch < lowest.epoch:
                    raise OutOfDate(found, lowest)
                raise Forged(f"{found.verb} of epoch {found.epoch} was said before")
            self.floor = Floor(key=key.seal.name, stamp=found.stamp)
            return found

        return await self._judged(look)

    async def config(self, r: Client, keys: Keys, in_force: MachineConfig | None) -> MachineConfig | None:
        """The configuration in Redis; None when nobody wrote one. Raises Forged, NoKey, EmpError for a damaged one."""

        async def look(key: CommandKey) -> MachineConfig | None:
            found = await read_config(r, keys, key)
            if found is None:
                return None
            lowest = key.since
            if in_force is not None and self.floor.key in ("", key.seal.name):
                lowest = max(lowest, in_force.stamp)
            if found.stamp < lowest:
                where = keys.config(key.machine)
                raise Forged(f"{where} is of epoch {found.stamp.epoch}, older than what it had", hint=ANEW)
            if not self.floor.key:
                self.floor = Floor(key=key.seal.name)
            return found

        return await self._judged(look)

    def _lowest(self, key: CommandKey) -> Stamp:
        """What is not newer is void. A new key begins anew: that is the way out of a fence that was lost."""
        return max(key.since, self.floor.stamp) if self.floor.key == key.seal.name else key.since

    async def _judged(self, look: Callable[[CommandKey], Awaitable[T]]) -> T:
        key = await self._read()
        try:
            return await look(key)
        except OtherKey as e:
            renewed = await self._renewed(key)
            if renewed is None:
                self._tell(e)
                raise
            key = renewed
        except Forged as e:
            self._tell(e)
            raise
        try:
            return await look(key)
        except Forged as e:
            self._tell(e)
            raise

    async def _read(self) -> CommandKey:
        try:
            return self._key()
        except NoKey:
            await self._ask()
            return self._key()

    async def _renewed(self, key: CommandKey) -> CommandKey | None:
        """Another key than `key`: one may be on its way, a rotation hands it over within moments. It is waited for once
        in a while: who forges must not keep us from what is not forged.
        """
        await self._ask()
        looks = int(ON_ITS_WAY_S / LOOK_S) if time.monotonic() >= self._wait_at_s else 1
        for left in reversed(range(looks)):
            found = self._key()
            if found.key != key.key:
                return found
            if left:
                await asyncio.sleep(LOOK_S)
        self._wait_at_s = time.monotonic() + ASK_S
        return None

    async def _ask(self) -> None:
        now_s = time.monotonic()
        if self._renew is not None and now_s >= self._ask_at_s:
            self._ask_at_s = now_s + ASK_S
            await self._renew()

    def _tell(self, e: Forged) -> None:
        before = self.words
        self._forged += 1
        self._last = e.message[:MAX_FORGED]
        self._told_until_s = time.monotonic() + TOLD_S
        if not before:
            log.error("refused: %s", e.message)
        if self.words != before:
            self._changed()
