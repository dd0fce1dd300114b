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
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from emp_orch.store.redis.scripts import Script

KEPT_MS = 24 * 3_600_000
LOST = "jobs_lost"

_LOOK = script("queue/losses/look")
_TELL = script("queue/losses/tell")


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
