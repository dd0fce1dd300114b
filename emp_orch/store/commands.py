"""`machine:{id}:commands` and `:acks`: what the leader tells a machine, and what came of it.

Commands state what should be; carrying one out twice does no harm. Each carries its sender's epoch, and the
agent refuses an epoch below the highest it has seen. Redis itself refuses one whose sender does not lead.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.store.connect import Client
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.events import entries_of
from emp_orch.store.fence import write
from emp_orch.store.keys import Keys
from emp_orch.store.leader import Mandate

MAX_COMMANDS = 1_000
MAX_CAUSE = 500

# KEYS[3] the machine's commands. ARGV[3] length of the stream, ARGV[4] the command.
_SEND = "redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'command', ARGV[4])"


class CommandVerb(StrEnum):
    APPLY_CONFIG = "apply_config"
    START_PROGRAM = "start_program"
    RESTART_PROGRAM = "restart_program"
    STOP_PROGRAM = "stop_program"


class Command(Struct, frozen=True, kw_only=True):
    """`seq` is the operation's key, given back in the ack. `program` is set for the program verbs. `cause`: why."""

    epoch: int
    seq: str
    verb: CommandVerb
    program: str | None = None
    cause: str = ""


class Ack(Struct, frozen=True, kw_only=True):
    seq: str
    ok: bool
    error: str = ""


async def send(
    r: Client,
    keys: Keys,
    mandate: Mandate,
    machine_id: str,
    verb: CommandVerb,
    *,
    seq: str,
    program: str | None = None,
    cause: str = "",
) -> None:
    """Append a command under the epoch of `mandate`. Raises NotLeader when that does not stand any more."""
    command = Command(epoch=mandate.epoch, seq=seq, verb=verb, program=program, cause=cause[:MAX_CAUSE])
    args: list[str | bytes | int] = [MAX_COMMANDS, msgspec.json.encode(command)]
    await write(r, keys, mandate, _SEND, to=[keys.commands(machine_id)], args=args)


async def acknowledge(r: Client, keys: Keys, machine_id: str, ack: Ack) -> None:
    fields = {"ack": msgspec.json.encode(ack).decode()}
    await r.xadd(keys.acks(machine_id), cast(Any, fields), maxlen=MAX_COMMANDS, approximate=True)


async def latest_command(r: Client, keys: Keys, machine_id: str) -> str:
    """The id to follow from so as to get only commands sent from now on."""
    entries = cast(list[tuple[str, Any]], await r.xrevrange(keys.commands(machine_id), count=1))
    return entries[0][0] if entries else "0-0"


async def commands_after(
    r: Client, keys: Keys, machine_id: str, after: str, *, block_ms: int
) -> list[tuple[str, Command | str]]:
    """Commands after id `after`, waiting up to `block_ms`; the text of the error for one that does not fit."""
    answer = await r.xread({keys.commands(machine_id): after}, count=100, block=block_ms)
    return [(entry_id, _decode(fields)) for entry_id, fields in entries_of(answer)]


def _decode(fields: dict[str, str]) -> Command | str:
    try:
        return msgspec.json.decode(fields.get("command", ""), type=Command)
    except DAMAGED as e:
        return str(e)
