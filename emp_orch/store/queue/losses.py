"""How many jobs there are, by which a loss is seen; and the last loss, told once by the reconciler that sees it first.

`jobs:mark` is a hash by which a Redis is known again: since when it is marked, how often it was looked at, how many
jobs were forgotten, and which mark stands for a loss that was told.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.states import ENDED
from emp_orch.jobs.outcome.losses import Count, Loss
from emp_orch.store.fleet.events import MAX_EVENTS, encode
from emp_orch.store.fleet.journal import MAX_ENTRIES
from emp_orch.store.queue.scripts import Script
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

KEPT_MS = 24 * 3_600_000
LOST = "jobs_lost"

# KEYS: the mark, jobs, their sequence number, the fleet's last loss, then the ended jobs of each status.
# Returns {now ms, since, looks, told, forgotten, seq, known, ended, last loss}; marks a Redis without a mark.
_LOOK = """
local t = redis.call('TIME')
local now = string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('HSETNX', KEYS[1], 'since', now)
local mark = redis.call('HMGET', KEYS[1], 'since', 'looks', 'told', 'forgotten')
local looks = (tonumber(mark[2]) or 0) + 1
redis.call('HSET', KEYS[1], 'looks', string.format('%d', looks))
local ended = 0
for i = 5, #KEYS do ended = ended + redis.call('ZCARD', KEYS[i]) end
local seq = tonumber(redis.call('GET', KEYS[3]) or '') or 0
return {now, mark[1], looks, mark[3] or '', tonumber(mark[4] or '') or 0, seq, redis.call('HLEN', KEYS[2]), ended,
  redis.call('GET', KEYS[4]) or ''}
"""

# KEYS: the mark, the fleet's last loss, its journal, the events. ARGV: the mark at the look, the new mark, the loss,
# for how long it is kept, type and data of the entry, length of the journal and of the events.
# Returns 1, or 0 when another has told it.
_TELL = """
if redis.call('HGET', KEYS[1], 'since') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'since', ARGV[2], 'told', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'type', ARGV[5], 'data', ARGV[6])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'type', ARGV[5], 'data', ARGV[6])
return 1
"""


class Looked(Struct, frozen=True, kw_only=True):
    """`last` is the loss told last, within a day."""

    count: Count
    last: Loss | None


class Losses:
    """Counts the jobs of one fleet, and tells what was lost."""

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._mark, self._loss = keys.jobs_mark, keys.loss(fleet)
        counted = [keys.jobs, keys.jobs_seq, self._loss, *(keys.jobs_in(status) for status in sorted(ENDED))]
        self._looked_at = [self._mark, *counted]
        self._told_in = [self._mark, self._loss, keys.journal(fleet), keys.events]
        self._look = Script(r.execute_command, _LOOK, len(self._looked_at))
        self._tell = Script(r.execute_command, _TELL, len(self._told_in))

    async def look(self) -> Looked:
        """The jobs as they are now."""
        found: Any = await self._look(*self._looked_at)
        at_ms, since, looks, told, forgotten, seq, known, ended, last = found
        count = Count(
            at_ms=int(at_ms),
            since=str(since),
            looks=int(looks),
            told=str(told),
            seq=int(seq),
            known=int(known),
            unfinished=max(0, int(known) - int(ended)),
            forgotten=int(forgotten),
        )
        return Looked(count=count, last=decode(last))

    async def tell(self, loss: Loss, now: Count) -> bool:
        """Into the journal and the events, unless another reconciler did; `now` is the look at which it was found."""
        entry = encode(LOST, {"jobs": loss.jobs, "how": loss.how, "reason": loss.words, "hint": loss.hint})
        text = msgspec.json.encode(loss)
        mark = f"{now.at_ms}-{now.looks}"
        args = [now.since, mark, text, KEPT_MS, entry["type"], entry["data"], MAX_ENTRIES, MAX_EVENTS]
        return bool(await self._tell(*self._told_in, *args))


def decode(text: str) -> Loss | None:
    """The loss in `text`; None for none, or one that does not fit."""
    try:
        return msgspec.json.decode(text, type=Loss) if text else None
    except msgspec.MsgspecError:
        return None
