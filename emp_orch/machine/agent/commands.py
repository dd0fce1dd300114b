"""Commands from the reconciler: followed, held against the machine's trust, carried out in turn, acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from emp_orch.errors import EmpError
from emp_orch.machine.home.trust import NoKey, OutOfDate, Trust
from emp_orch.seals import Forged
from emp_orch.store.fleet.commands import Ack, StampedCommand, acknowledge, commands_after, latest_command
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("agent")

BLOCK_MS = 10_000
RETRY_S = 0.5


NOTHING = (0, 0)


def _position(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n or 0)


class CommandFollower:
    """Follows one machine's command stream from `last`; `remember(last)` keeps the place, and the floor of `trust`,
    across restarts. `answered()` is called after each command, once it is acknowledged.

    Without a `last` it begins at the stream's end, and `catch_up()` looks at what may have been said before.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        machine_id: str,
        *,
        last: str,
        trust: Trust,
        catch_up: Callable[[], Awaitable[None]],
        carry_out: Callable[[StampedCommand], Awaitable[None]],
        remember: Callable[[str], None],
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._r = r
        self._keys = keys
        self._machine_id = machine_id
        self._last = last
        self._trust = trust
        self._catch_up = catch_up
        self._carry_out = carry_out
        self._remember = remember
        self._answered = answered
        self._events = Events(r, keys)
        self._told = ""

    async def run(self) -> None:
        while True:
            try:
                if not self._last:
                    # Commands to a machine's former life are void; what they asked for is in its configuration.
                    self._last = await latest_command(self._r, self._keys, self._machine_id)
                    self._remember(self._last)
                    await self._catch_up()
                batch = await commands_after(self._r, self._keys, self._machine_id, self._last, block_ms=BLOCK_MS)
                for entry_id, text in batch:
                    await self._one(entry_id, text)
                self._told = ""
                if not batch:
                    await self._find_position()
            except TRANSIENT as e:
                log.warning("commands cannot be read: %s", e)
                await asyncio.sleep(RETRY_S)
            except NoKey as e:
                if e.message != self._told:
                    log.error("orders are not taken: %s", e.message)
                self._told = e.message
                await asyncio.sleep(RETRY_S)
            except EmpError as e:
                log.error("the configuration in Redis was not taken over: %s", e.message)
                await asyncio.sleep(RETRY_S)

    async def _find_position(self) -> None:
        """A stream that ends before our place is another: Redis was emptied, and its clock set back. Read all of it."""
        latest = await latest_command(self._r, self._keys, self._machine_id)
        if NOTHING < _position(latest) < _position(self._last):
            self._last = "0-0"
            self._remember(self._last)

    async def _one(self, entry_id: str, text: str) -> None:
        ack = await self._answer(text)
        self._last = entry_id
        if ack is None:
            return
        self._remember(self._last)
        await acknowledge(self._r, self._keys, self._machine_id, ack)
        await self._events.append(
            "command_done", machine_id=self._machine_id, operation=ack.seq, ok=ack.ok, error=ack.error
        )
        self._answered()

    async def _answer(self, text: str) -> Ack | None:
        """What comes of a command. None: whoever said it is owed no answer, and no write to the disk.

        Raises NoKey: it waits for the key.
        """
        try:
            command = await self._trust.command(text)
        except OutOfDate as e:
            log.warning("refused %s: %s", e.command.verb, e.message)
            return Ack(seq=e.command.seq, ok=False, error=f"{e.message}; {e.hint}")
        except Forged:
            return None
        except NoKey:
            raise
        except EmpError as e:
            return Ack(seq="", ok=False, error=e.message)
        return await self._carried_out(command)

    async def _carried_out(self, command: StampedCommand) -> Ack:
        log.info("command %s %s (epoch %d)", command.verb, command.program or "", command.epoch)
        try:
            await self._carry_out(command)
        except EmpError as e:
            log.warning("command %s failed: %s", command.verb, e.message)
            return Ack(seq=command.seq, ok=False, error=e.message)
        return Ack(seq=command.seq, ok=True)
