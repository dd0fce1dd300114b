"""One run on a ComfyUI server: queue a workflow, follow it, fetch what it made."""

from __future__ import annotations

import aiohttp

from emp_orch.connectors.base import Run, RunFailed, StillRuns
from emp_orch.connectors.comfyui import outputs
from emp_orch.connectors.comfyui.follow import Follower
from emp_orch.connectors.comfyui.progress import ProgressOfRun
from emp_orch.connectors.comfyui.protocol import Interrupted, Record, Workflow, check
from emp_orch.connectors.comfyui.server import Server
from emp_orch.connectors.http_client import NETWORK
from emp_orch.jobs.model import Result

PROBE_TIMEOUT_S = 3.0


class ComfyClient:
    """One service at `url`. One run at a time."""

    def __init__(self, url: str) -> None:
        self.server = Server(url)
        self._cancel_asked = False
        self._current: Follower | None = None

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
        await self.server.close()

    async def get(self, path: str, *, timeout_s: float = 30.0) -> bytes:
        """The body of a 200 answer. Raises NETWORK errors."""
        return await self.server.get(path, timeout_s=timeout_s)

    def gone(self, cause: BaseException) -> RunFailed:
        return self.server.gone(cause)

    async def run(self, workflow: Workflow, run: Run) -> Result:
        """Queue `workflow`, follow it to its end, save its outputs. Raises RunFailed."""
        self._cancel_asked = False
        try:
            with self.server.in_words():
                return await self._run(workflow, run)
        finally:
            self._current = None

    async def _run(self, workflow: Workflow, run: Run) -> Result:
        client_id = _client_id(run)
        async with self.server.listen(client_id) as socket:
            body = {"prompt": workflow, "client_id": client_id, "extra_data": {"emp_job_id": run.job.id}}
            prompt_id = (await self.server.queue(body)).prompt_id
            follower = self._follower(prompt_id, workflow, run)
            await run.began(prompt_id)
            if self._cancel_asked:  # while the workflow was on its way
                await self.cancel()
            try:
                record = await follower.follow(socket)
            except NETWORK:
                record = None
        record = record or await follower.follow_again()
        check(record)
        return await outputs.save(self.server, record, run)

    def _follower(self, prompt_id: str, workflow: Workflow, run: Run) -> Follower:
        self._current = Follower(self.server, _client_id(run), prompt_id, ProgressOfRun(workflow, run.progress))
        return self._current

    async def recover(self, workflow: Workflow, run: Run, prompt_id: str, *, wait: bool) -> Result | None:
        """What became of the run `prompt_id`, as Recovers.recover says."""
        self._cancel_asked = False
        try:
            with self.server.in_words():
                return await self._recover(workflow, run, prompt_id, wait=wait)
        finally:
            self._current = None

    async def _recover(self, workflow: Workflow, run: Run, prompt_id: str, *, wait: bool) -> Result | None:
        record = await self.server.record(prompt_id)
        if record is None and await self.server.place(prompt_id):
            if not wait:
                raise StillRuns
            record = await self._ended(self._follower(prompt_id, workflow, run))
            if record is None:
                return None
        # It may have ended between the two looks.
        record = record or await self.server.record(prompt_id)
        if record is None:
            return None
        try:
            check(record)
        except Interrupted:
            return None
        return await outputs.save(self.server, record, run)

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
        try:
            if not await self.server.end(follower.prompt_id):
                await follower.wake()
        except NETWORK as e:
            raise self.server.gone(e) from e


def _client_id(run: Run) -> str:
    """The same for every run of a job, so that whoever follows a lost worker's run hears its messages."""
    return f"emp-{run.job.id}"
