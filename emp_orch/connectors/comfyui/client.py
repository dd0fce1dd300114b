"""A client of ComfyUI's HTTP and WebSocket API: queue a workflow, follow it, fetch what it made.

Source: ComfyUI's server.py and execution.py (https://github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import PurePosixPath
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from emp_orch.connectors.base import MALFORMED, Run, RunFailed, StillRuns
from emp_orch.connectors.comfyui.protocol import (
    File,
    Interrupted,
    Message,
    ProgressOfRun,
    Queued,
    QueueState,
    Record,
    Workflow,
    check,
    files_of,
    node_failure,
    refusal,
    texts_of,
)
from emp_orch.connectors.http_client import NETWORK, base_url
from emp_orch.connectors.outputs import body_of, content_type_of, once
from emp_orch.jobs.model import Output, Result

PROBE_TIMEOUT_S = 3.0
# Without a message for so long, the history is looked at: a message can be lost with a connection.
SILENCE_S = 5.0
RECONNECT_S = 0.5
# A preview picture is the largest.
MAX_MESSAGE_BYTES = 64 * 1024**2
# A run's record repeats its workflow.
MAX_ANSWER_BYTES = 32 * 1024**2
# How long a service may be out of reach in the middle of a run.
GONE_S = 15.0


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ClientPayloadError, one of NETWORK, when it is larger than MAX_ANSWER_BYTES."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


class ComfyClient:
    """One service at `url`. One run at a time."""

    def __init__(self, url: str) -> None:
        self._base = base_url(url)
        self._session: aiohttp.ClientSession | None = None
        self._client_id = ""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._cancel_asked = False
        self.current: str | None = None

    @property
    def shown(self) -> str:
        """The URL without a login."""
        return str(self._base.with_user(None)).rstrip("/")

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, *, timeout_s: float = 30.0) -> bytes:
        """The body of a 200 answer. Raises NETWORK errors."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = self._base / path.lstrip("/")
        async with self.session().get(url, timeout=timeout, allow_redirects=False) as answer:
            answer.raise_for_status()
            return await _whole(answer)

    def gone(self, cause: BaseException) -> RunFailed:
        words = str(cause) or type(cause).__name__
        reached = not isinstance(cause, aiohttp.ClientConnectorError)
        return RunFailed(f"the service at {self.shown} does not answer: {words}", retryable=True, reached=reached)

    # one run

    async def run(self, workflow: Workflow, run: Run) -> Result:
        """Queue `workflow`, follow it to its end, save its outputs. Raises RunFailed."""
        self._begin(run)
        progress = ProgressOfRun(workflow, run.progress)
        with self._in_words():
            async with self.session().ws_connect(
                self._ws_url(), heartbeat=20, max_msg_size=MAX_MESSAGE_BYTES
            ) as socket:
                self._socket = socket
                self.current = prompt_id = await self._queue(workflow, run.job.id)
                await run.began(prompt_id)
                if self._cancel_asked:  # while the workflow was on its way
                    await self.cancel()
                try:
                    record = await self._follow(socket, prompt_id, progress)
                except NETWORK:
                    record = None
            record = record or await self._follow_again(prompt_id, progress)
            check(record)
            return await self._save(record, run)

    async def recover(self, workflow: Workflow, run: Run, prompt_id: str, *, wait: bool) -> Result | None:
        """What became of the run `prompt_id`, as Recovers.recover says."""
        self._begin(run)
        with self._in_words():
            record = await self._record(prompt_id)
            if record is None and await self._in_queue(prompt_id):
                if not wait:
                    raise StillRuns
                self.current = prompt_id
                record = await self._ended(prompt_id, ProgressOfRun(workflow, run.progress))
                if record is None:
                    return None
            # It may have ended between the two looks.
            record = record or await self._record(prompt_id)
            if record is None:
                return None
            try:
                check(record)
            except Interrupted:
                return None
            return await self._save(record, run)

    async def _ended(self, prompt_id: str, progress: ProgressOfRun) -> Record | None:
        """The record of another's run at its end. None: someone else than we interrupted it."""
        try:
            return await self._follow_again(prompt_id, progress)
        except Interrupted:
            if self._cancel_asked:
                raise
            return None

    def _begin(self, run: Run) -> None:
        self._cancel_asked = False
        # The same for every run of a job, so that whoever follows a lost worker's run hears its messages.
        self._client_id = f"emp-{run.job.id}"

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turns what the network and the decoder raise into RunFailed; the run is over behind it."""
        try:
            yield
        except NETWORK as e:
            raise self.gone(e) from e
        except MALFORMED as e:
            raise RunFailed(f"the service at {self.shown} does not speak ComfyUI: {e}", retryable=False) from e
        finally:
            self.current = self._socket = None

    def _ws_url(self) -> URL:
        scheme = "wss" if self._base.scheme == "https" else "ws"
        return (self._base / "ws").with_scheme(scheme).with_query(clientId=self._client_id)

    def _listening(self) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        return self.session().ws_connect(self._ws_url(), heartbeat=20, max_msg_size=MAX_MESSAGE_BYTES)

    async def _queue(self, workflow: Workflow, job_id: str) -> str:
        body = {"prompt": workflow, "client_id": self._client_id, "extra_data": {"emp_job_id": job_id}}
        async with self.session().post(self._base / "prompt", json=body, allow_redirects=False) as answer:
            text = await _whole(answer)
            if answer.status != 200:
                raise refusal(answer.status, text)
        return msgspec.json.decode(text, type=Queued).prompt_id

    async def _follow(
        self, socket: aiohttp.ClientWebSocketResponse, prompt_id: str, progress: ProgressOfRun
    ) -> Record | None:
        """Pass progress on until the run is over; its record. None: the connection ended before."""
        while True:
            try:
                got = await socket.receive(timeout=SILENCE_S)
            except TimeoutError:
                if record := await self._record(prompt_id):
                    return record
                await self._still_there(prompt_id)
                continue
            if got.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                return None
            if got.type is aiohttp.WSMsgType.ERROR:
                return None
            if got.type is not aiohttp.WSMsgType.TEXT:
                continue  # previews are binary
            try:
                message = msgspec.json.decode(got.data, type=Message)
            except MALFORMED:
                continue  # another extension's message
            if message.data.get("prompt_id") != prompt_id:
                continue
            match message.type:
                case "execution_error":
                    raise node_failure(message.data)
                case "execution_interrupted":
                    raise Interrupted
                case "executing" if message.data.get("node") is None:
                    if record := await self._record(prompt_id):
                        return record
                case "execution_success":
                    if record := await self._record(prompt_id):
                        return record
                case _:
                    await progress.take(message)

    async def _follow_again(self, prompt_id: str, progress: ProgressOfRun) -> Record:
        """The connection ended in the middle of a run: find out whether the run goes on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_S
        while True:
            try:
                if record := await self._record(prompt_id):
                    return record
                await self._still_there(prompt_id)
                async with self.session().ws_connect(
                    self._ws_url(), heartbeat=20, max_msg_size=MAX_MESSAGE_BYTES
                ) as socket:
                    self._socket = socket
                    if record := await self._follow(socket, prompt_id, progress):
                        return record
                deadline = loop.time() + GONE_S
            except NETWORK:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(RECONNECT_S)

    async def _record(self, prompt_id: str) -> Record | None:
        return msgspec.json.decode(await self.get(f"history/{prompt_id}"), type=dict[str, Record]).get(prompt_id)

    async def _in_queue(self, prompt_id: str) -> str:
        """`running`, `pending`, or '' when the service does not hold it."""
        queue = msgspec.json.decode(await self.get("queue"), type=QueueState)
        for name, rows in (("running", queue.queue_running), ("pending", queue.queue_pending)):
            if any(len(row) > 1 and row[1] == prompt_id for row in rows):
                return name
        return ""

    async def _still_there(self, prompt_id: str) -> None:
        if not await self._in_queue(prompt_id) and not await self._record(prompt_id):
            raise RunFailed(
                f"the service at {self.shown} lost the run: it was restarted or its queue cleared", retryable=True
            )

    async def cancel(self) -> None:
        """Take the present run out of the queue, or interrupt it when it is the one that runs."""
        self._cancel_asked = True
        prompt_id = self.current
        if prompt_id is None:
            return
        try:
            await self._post("queue", {"delete": [prompt_id]})
            # Older versions interrupt whatever runs, so look first.
            if await self._in_queue(prompt_id) == "running":
                await self._post("interrupt", {"prompt_id": prompt_id})
            elif self._socket is not None:
                await self._socket.close()  # nobody will tell of it any more: have the run look now
        except NETWORK as e:
            raise self.gone(e) from e

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        async with self.session().post(self._base / path, json=body, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            answer.raise_for_status()

    # outputs

    async def _save(self, record: Record, run: Run) -> Result:
        outputs = [await self._save_file(file, run) for _, file in files_of(record)]
        outputs += [
            await run.save(f"{node_id}.txt", "text/plain; charset=utf-8", once(text.encode(errors="replace")))
            for node_id, text in texts_of(record)
        ]
        return Result(outputs=tuple(outputs))

    async def _save_file(self, file: File, run: Run) -> Output:
        """Copy one file into the artifact store; begun again for a while when the connection breaks."""
        name = PurePosixPath(file.filename).name
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_S
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        while True:
            try:
                async with self.session().get((self._base / "view").with_query(query), allow_redirects=False) as answer:
                    if answer.status != 200:
                        words = f"the service made {name} but answered {answer.status} for it"
                        raise RunFailed(words, retryable=True)
                    return await run.save(name, content_type_of(answer, name), body_of(answer))
            except NETWORK:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(RECONNECT_S)
