"""One run on a ComfyUI server: queue a workflow, follow it, fetch what it made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from emp_orch.connectors.base import MALFORMED, Run, RunFailed, StillRuns
from emp_orch.connectors.comfyui.files.outputs import Collector
from emp_orch.connectors.comfyui.files.tidy import Tidier
from emp_orch.connectors.comfyui.run.attempt import Attempt, DoubtfulOutput
from emp_orch.connectors.comfyui.run.channel import Channel
from emp_orch.connectors.comfyui.run.follow import Follower
from emp_orch.connectors.comfyui.run.isolation import mark_of, marks_in
from emp_orch.connectors.comfyui.run.progress import Costs
from emp_orch.connectors.comfyui.server.folders import Folders
from emp_orch.connectors.comfyui.server.occupancy import Occupancy
from emp_orch.connectors.comfyui.server.protocol import (
    Interrupted,
    OutOfMemory,
    Record,
    Workflow,
    check,
    partly_refused,
)
from emp_orch.connectors.comfyui.server.requests import Server
from emp_orch.connectors.comfyui.server.session import TooLarge
from emp_orch.connectors.http.client import NETWORK
from emp_orch.jobs.document.model import Result
from emp_orch.options.comfyui import Tidy

log = logging.getLogger("emp.worker")

# The service forgets between two runs, and says of it nothing: so long it is left alone for that.
FORGETS_S = 0.3


class ComfyClient:
    """One service at `url`. One run at a time."""

    def __init__(self, url: str, tidy: Tidy | None = None) -> None:
        self.server = Server(url)
        self._tidier = None if tidy is None else Tidier(tidy)
        self._collector = Collector(self.server)
        self._costs = Costs()
        self._cancel_asked = False
        self._current: Follower | None = None
        self.occupancy = Occupancy(self.server)
        self._channel = Channel(self.server)

    @property
    def current(self) -> str | None:
        """The service's id of the present run."""
        return self._current.prompt_id if self._current else None

    @property
    def shown(self) -> str:
        """The URL without a login."""
        return self.server.shown

    def session(self) -> aiohttp.ClientSession:
        return self.server.http

    async def close(self) -> None:
        await self._channel.drop()
        await self.server.close()

    async def get(self, path: str, *, timeout_s: float = 30.0) -> bytes:
        """The body of a 200 answer. Raises NETWORK errors."""
        return await self.server.get(path, timeout_s=timeout_s)

    def gone(self, cause: BaseException) -> RunFailed:
        return self.server.gone(cause)

    async def run(self, workflow: Workflow, run: Run, extra_data: Mapping[str, Any] | None = None) -> Result:
        """Queue `workflow` with `extra_data`, follow it to its end, save its outputs. Raises RunFailed.

        Where an output is not there or not this run's, the service is told to forget what it keeps, and runs it once
        more.
        """
        self._cancel_asked = False
        try:
            with self.server.in_words():
                if not self._channel.says_free():
                    await self.occupancy.be_free()
                try:
                    return await self._try(Attempt(run=run, workflow=workflow, extra_data=extra_data or {}))
                except DoubtfulOutput as e:
                    if self._cancel_asked:
                        raise
                    log.warning("job %s: %s; its workflow is run once more", run.job.id, e)
                    await self.server.free(models=False)
                    await asyncio.sleep(FORGETS_S)
                    run.begin_anew()
                    again = Attempt(run=run, workflow=workflow, extra_data=extra_data or {})
                    again.note(f"run twice: {e}")
                    return await self._try(again)
        finally:
            self._current = None
            self.occupancy.over()

    async def _try(self, attempt: Attempt) -> Result:
        async with self._channel.held() as socket:
            attempt.client_id = self._channel.client_id
            follower = self._current = Follower(self.server, attempt, self._costs, self._channel.note)
            follower.attach(socket)
            record = await self._queue(attempt, follower)
            if self._cancel_asked:  # while the workflow was on its way
                await self.cancel()
            if record is None:
                try:
                    record = await follower.follow(socket)
                except NETWORK:
                    record = None
        if record is None:
            record = await self._followed(follower)
        elif follower.unheard:
            await self._channel.drop()
        return await self._end(record, attempt, follower)

    async def _followed(self, follower: Follower) -> Record:
        await self._channel.drop()
        try:
            return await follower.follow_again()
        except (RunFailed, *NETWORK):
            if follower.failure is not None:  # it was told before its record was lost
                raise follower.failure from None
            raise

    async def _queue(self, attempt: Attempt, follower: Follower) -> Record | None:
        """Queue the workflow under an id that Redis is sent before, so that no run is ever nobody's.

        The run's record, where the answer was lost and the run is over.
        """
        run = attempt.run
        self.occupancy.begins(attempt.prompt_id)
        await run.began(attempt.prompt_id)
        body = {
            "prompt": attempt.sent,
            "prompt_id": attempt.prompt_id,
            "client_id": attempt.client_id,
            "extra_data": {**attempt.extra_data, "emp_job_id": run.job.id},
        }
        try:
            queued = await self.server.queue(body)
        except (aiohttp.ClientConnectorError, TooLarge):
            raise
        except NETWORK as e:
            log.warning("job %s: the answer to its workflow was lost (%s); asking for the run", run.job.id, e)
            await self._channel.drop()
            return await follower.follow_again()
        if queued.prompt_id != attempt.prompt_id:  # a version that chooses for itself
            attempt.prompt_id = queued.prompt_id
            self.occupancy.begins(attempt.prompt_id)
            await run.began(queued.prompt_id)
        if isinstance(queued.node_errors, dict) and queued.node_errors:
            if run.job.payload.get("partial") is not True:
                await self.server.end(attempt.prompt_id)
                raise partly_refused(queued.node_errors)
            attempt.node_errors = queued.node_errors
        return None

    async def look_into(self, folders: Folders) -> None:
        """The service's folders are these: outputs are read there, and what is due of what runs made is removed."""
        self._collector.folders = folders
        now = time.monotonic()
        if self._tidier is not None and self._tidier.due(now):
            await asyncio.to_thread(self._tidier.sweep, folders, now, time.time())

    async def _end(self, record: Record, attempt: Attempt, follower: Follower) -> Result:
        """The result; of a failed run what there is of it is kept with the failure."""
        try:
            return await self._outcome(record, attempt, follower)
        finally:
            if self._tidier is not None:
                self._tidier.add(attempt.copied, time.monotonic())

    async def _outcome(self, record: Record, attempt: Attempt, follower: Follower) -> Result:
        try:
            if follower.failure is not None:
                raise follower.failure
            check(record)
        except Interrupted:
            raise
        except RunFailed as e:
            e.keep(await self._collector.kept(record, attempt))
            if isinstance(e, OutOfMemory):
                await self._make_room()
            raise
        if attempt.cut and attempt.sends_pictures:
            raise DoubtfulOutput("the connection broke during the run, and pictures sent over it may be lost")
        return await self._collector.result(record, attempt)

    async def _make_room(self) -> None:
        """Have the service give the GPU's memory back, for what is run on it next."""
        try:
            await self.server.free(models=True)
        except NETWORK as e:
            log.warning("the service at %s was not told to free its memory: %s", self.shown, e)

    async def recover(self, workflow: Workflow, run: Run, prompt_id: str, *, wait: bool) -> Result | None:
        """What became of the run `prompt_id`, as Recovers.recover says."""
        self._cancel_asked = False
        try:
            with self.server.in_words():
                return await self._recover(Attempt(run=run, workflow=workflow, prompt_id=prompt_id), wait=wait)
        finally:
            self._current = None
            self.occupancy.over()

    async def _recover(self, attempt: Attempt, *, wait: bool) -> Result | None:
        prompt_id = attempt.prompt_id
        follower = Follower(self.server, attempt, self._costs)
        record = await self.server.record(prompt_id)
        if record is None and (held := await self.server.held(prompt_id)) is not None:
            if not wait:
                raise StillRuns
            attempt.client_id = held.client_id  # the lost worker's: its messages go there
            self._current = follower
            self.occupancy.begins(prompt_id)
            record = await self._ended(follower)
            if record is None:
                return None
        # It may have ended between the two looks.
        record = record or await self.server.record(prompt_id)
        if record is None or attempt.sends_pictures:  # nobody listened to those
            return None
        # A version that chose the id for itself: the mark is in what it was given.
        own = marks_in(record.prompt)
        attempt.mark = attempt.mark if mark_of(prompt_id) in own else min(own - attempt.mentioned, default="")
        try:
            return await self._end(record, attempt, follower)
        except (Interrupted, DoubtfulOutput):
            return None

    async def _ended(self, follower: Follower) -> Record | None:
        """The record of another's run at its end. None: someone else than we interrupted it."""
        try:
            return await follower.follow_again()
        except Interrupted:
            if self._cancel_asked:
                raise
            return None

    async def cancel(self) -> None:
        """Take the present run out of the queue, or interrupt it when it is the one that runs."""
        self._cancel_asked = True
        follower = self._current
        if follower is None:
            return
        self.occupancy.interrupted(follower.prompt_id)
        try:
            if not await self.server.end(follower.prompt_id):
                await follower.wake()
        except NETWORK as e:
            raise self.server.gone(e) from e
        except MALFORMED as e:
            raise RunFailed(f"the service at {self.shown} does not speak ComfyUI: {e}", retryable=False) from e
