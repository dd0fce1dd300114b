"""`machine:{id}:commands` and `:acks`: what the leader tells a machine, and what came of it.

Commands state what should be; carrying one out twice does no harm. Each is sealed for its machine, and stamped with
its sender's epoch and count: the agent refuses one without a seal that fits, and one that is not newer than the last.
Redis itself refuses one whose sender does not lead.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.seals import CommandKey, Seal, Stamp, for_command
from emp_orch.store.fleet.events import entries_of
from emp_orch.store.fleet.fencing import write
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client, blocking
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

MAX_COMMANDS = 1_000
MAX_CAUSE = 500

_SEND = script("fleet/send")


class CommandVerb(StrEnum):
    APPLY_CONFIG = "apply_config"
    START_PROGRAM = "start_program"
    RESTART_PROGRAM = "restart_program"
    STOP_PROGRAM = "stop_program"


class Command(Struct, frozen=True, kw_only=True):
    """`seq` is the operation's key, given back in the ack. `program` is set for the program verbs. `cause`: why."""

    seq: str
    verb: CommandVerb
    program: str | None = None
    cause: str = ""


class StampedCommand(Command, frozen=True, kw_only=True):
    """A command as it is sent: by whose epoch, and the how manyth of it."""

    epoch: int
    count: int = 0

    @property
    def stamp(self) -> Stamp:
        return Stamp(epoch=self.epoch, count=self.count)


class Ack(Struct, frozen=True, kw_only=True):
    seq: str
    ok: bool
    error: str = ""


async def send(
    r: Client, keys: Keys, mandate: Mandate, machine_id: str, command: Command, *, seal: Seal, count: int
) -> None:
    """Append a command under the epoch of `mandate`. Raises NotLeader when that does not stand any more.

    `seal`: the machine's. `count` rises from command to command of one epoch, in the order in which they are sent.
    """
    stamped = StampedCommand(
        epoch=mandate.epoch,
        count=count,
        seq=command.seq,
        verb=command.verb,
        program=command.program,
        cause=command.cause[:MAX_CAUSE],
    )
    sealed = seal.sealed(for_command(mandate.fleet, machine_id), msgspec.json.encode(stamped))
    args: list[str | bytes | int] = [MAX_COMMANDS, sealed]
    await write(r, keys, mandate, _SEND, to=[keys.commands(machine_id)], args=args)


async def acknowledge(r: Client, keys: Keys, machine_id: str, ack: Ack) -> None:
    fields = {"ack": msgspec.json.encode(ack).decode()}
    await r.xadd(keys.acks(machine_id), cast(Any, fields), maxlen=MAX_COMMANDS, approximate=True)


async def latest_command(r: Client, keys: Keys, machine_id: str) -> str:
    """The id to follow from so as to get only commands sent from now on."""
    entries = cast(list[tuple[str, Any]], await r.xrevrange(keys.commands(machine_id), count=1))
    return entries[0][0] if entries else "0-0"


async def commands_after(r: Client, keys: Keys, machine_id: str, after: str, *, block_ms: int) -> list[tuple[str, str]]:
    """Commands after id `after` as they stand there, waiting up to `block_ms`: for `opened`.

    Raises TimeoutError where Redis says nothing.
    """
    async with blocking(block_ms):
        answer = await r.xread({keys.commands(machine_id): after}, count=100, block=block_ms)
    return [(entry_id, fields.get("command", "")) for entry_id, fields in entries_of(answer)]


def opened(text: str, key: CommandKey) -> StampedCommand:
    """The command in `text`, for the machine that has `key`. Raises Forged, EmpError for one that does not fit."""
    document = key.seal.opened(for_command(key.fleet, key.machine), text, "a command")
    try:
        return msgspec.json.decode(document, type=StampedCommand)
    except DAMAGED as e:
        raise EmpError(f"not a command: {e}", hint="is the reconciler's emp newer than this machine's?") from e
