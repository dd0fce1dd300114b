"""What else than this worker's run a ComfyUI server is at: its queue, read before each run and at each probe.

A server works off one prompt after the other. What is queued behind another's prompt waits, and behind one that ignores
its interrupt it waits in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui.server.protocol import QueueState
from emp_orch.connectors.comfyui.server.session import Session, TooLarge
from emp_orch.connectors.sanitise import words
from emp_orch.fleet.model.observed import Occupant

# As long as an id of either may be when it is shown.
MAX_ID = 64
# How long the look before a run may take, where the service is slow to answer.
LOOK_S = 5.0
LOOK_AGAIN_S = 0.05
# How long a server may show a run of which it has told the end.
SETTLES_S = 2.0
ENDLESS = "a queue that is too long to be read"


class Row(Struct, frozen=True, kw_only=True):
    """One prompt of the queue. `job_id`: the job of emp's that it runs, empty for another's."""

    prompt_id: str
    job_id: str = ""


def rows_of(queue: QueueState) -> Iterator[Row]:
    """What it is at, then what waits. Row of the queue: number, id, workflow, extra_data, output nodes."""
    for row in (*queue.queue_running, *queue.queue_pending):
        if len(row) > 1 and isinstance(row[1], str):
            yield Row(prompt_id=words(row[1], MAX_ID), job_id=_job_of(row))


def _job_of(row: list[Any]) -> str:
    extra = row[3] if len(row) > 3 else None
    job_id = extra.get("emp_job_id") if isinstance(extra, dict) else None
    return words(job_id, MAX_ID) if isinstance(job_id, str) else ""


class Taken(Struct, frozen=True, kw_only=True):
    """`by`: words that name the prompt, and its job where it has one."""

    by: str
    occupant: Occupant


class Occupied(RunFailed):
    """The service is at something else: no run was begun on it, and none is counted."""

    def __init__(self, shown: str, by: str) -> None:
        super().__init__(f"the service at {shown} is occupied by {by}", retryable=True, reached=False)


class Occupancy:
    """Looks at one server's queue. It knows the present run, and which runs were interrupted from here."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: set[str] = set()
        self._interrupted: set[str] = set()
        # The runs that have just ended, and when: the server may hold them for a moment.
        self._over: dict[str, float] = {}

    def begins(self, prompt_id: str) -> None:
        """The present run goes by this id, too."""
        self._own.add(prompt_id)

    def interrupted(self, prompt_id: str) -> None:
        """This run was told to end."""
        self._interrupted.add(prompt_id)

    def over(self) -> None:
        """Nobody here waits for the present run any more, whatever the server makes of it."""
        now = time.monotonic()
        self._over = {i: at for i, at in self._over.items() if now - at < SETTLES_S} | dict.fromkeys(self._own, now)
        self._own.clear()

    async def _others(self, *, timeout_s: float) -> list[Row] | None:
        """What the server holds beside the present run; None where that is too much to be read."""
        own = set(self._own)
        try:
            text = await self._session.get("queue", timeout_s=timeout_s)
        except TooLarge:
            return None
        except aiohttp.ClientResponseError:
            return []  # it shows nobody its queue
        rows = list(rows_of(msgspec.json.decode(text, type=QueueState)))
        own |= self._own  # one may have begun meanwhile
        self._interrupted &= {r.prompt_id for r in rows} | own
        return [r for r in rows if r.prompt_id not in own]

    def _settles(self, row: Row) -> bool:
        ended = self._over.get(row.prompt_id)
        return ended is not None and row.prompt_id not in self._interrupted and time.monotonic() - ended < SETTLES_S

    def _occupied(self, row: Row) -> Taken:
        of = f" of job {row.job_id}" if row.job_id else ""
        if row.prompt_id in self._interrupted:
            return Taken(by=f"prompt {row.prompt_id}{of}, which ignores an interrupt", occupant=Occupant.STUCK)
        if row.prompt_id in self._over:
            return Taken(by=f"prompt {row.prompt_id}{of}, which was given up and runs on", occupant=Occupant.RUN)
        if row.job_id:
            return Taken(by=f"prompt {row.prompt_id}{of}, which another worker sent", occupant=Occupant.RUN)
        return Taken(by=f"a prompt that emp did not send ({row.prompt_id})", occupant=Occupant.FOREIGN)

    async def look(self, *, timeout_s: float = LOOK_S) -> Taken | None:
        """Who occupies the service beside the present run, if anybody does.

        Raises NETWORK errors, and MALFORMED where the server speaks another language.
        """
        rows = await self._others(timeout_s=timeout_s)
        if rows is None:
            return Taken(by=ENDLESS, occupant=Occupant.FOREIGN)
        return self._occupied(rows[0]) if rows and not self._settles(rows[0]) else None

    async def be_free(self) -> None:
        """Raises Occupied when the next run would have to wait for another's; else as `look`."""
        while True:
            rows = await self._others(timeout_s=LOOK_S)
            if rows is None:
                raise Occupied(self._session.shown, ENDLESS)
            if not rows:
                return
            if not self._settles(rows[0]):
                raise Occupied(self._session.shown, self._occupied(rows[0]).by)
            await asyncio.sleep(LOOK_AGAIN_S)
