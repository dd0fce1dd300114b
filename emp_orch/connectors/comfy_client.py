"""A client of ComfyUI's HTTP and WebSocket API: queue a workflow, follow it, fetch what it made.

Source: ComfyUI's server.py and execution.py (https://github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mimetypes
import uuid
from pathlib import PurePosixPath
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from emp_orch.connectors.base import MALFORMED, CannotLoad, OnProgress, RunFailed
from emp_orch.connectors.comfy_protocol import (
    File,
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
from emp_orch.jobs.model import Output, Result

PROBE_TIMEOUT_S = 3.0
# Without a message for so long, the history is looked at: a message can be lost with a connection.
SILENCE_S = 5.0
RECONNECT_S = 0.5
# How long a service may be out of reach in the middle of a run.
GONE_S = 15.0

# An output up to this size travels in the result; a result carries at most INLINE_TOTAL of them.
INLINE_BYTES = 64 * 1024
INLINE_TOTAL = 1024 * 1024
MAX_OUTPUT_BYTES = 1024**3
_CHUNK = 256 * 1024

_NETWORK = (aiohttp.ClientError, TimeoutError, OSError)


class ComfyClient:
    """One service at `url`. One run at a time."""

    def __init__(self, url: str) -> None:
        base = URL(url)
        if base.scheme not in ("http", "https") or not base.host:
            raise CannotLoad(f"{url!r} is not the URL of a service", hint="use http://HOST:PORT")
        self._base = base
        self._session: aiohttp.ClientSession | None = None
        self._client_id = uuid.uuid4().hex
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
        """The body of a 200 answer. Raises _NETWORK errors."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self.session().get(self._base / path.lstrip("/"), timeout=timeout) as answer:
            answer.raise_for_status()
            return await answer.read()

    def gone(self, cause: BaseException) -> RunFailed:
        words = str(cause) or type(cause).__name__
        return RunFailed(f"the service at {self.shown} does not answer: {words}", retryable=True)

    # one run

    async def run(self, workflow: Workflow, on_progress: OnProgress, *, extra_data: dict[str, Any]) -> Result:
        """Queue `workflow`, follow it to its end, fetch its outputs. Raises RunFailed."""
        self._cancel_asked = False
        try:
            async with self.session().ws_connect(self._ws_url(), heartbeat=20, max_msg_size=0) as socket:
                self._socket = socket
                self.current = await self._queue(workflow, extra_data)
                if self._cancel_asked:  # while the workflow was on its way
                    await self.cancel()
                progress = ProgressOfRun(workflow, on_progress)
                record = await self._follow(socket, self.current, progress)
            record = record or await self._follow_again(self.current, progress)
            check(record)
            return await self._fetch(record)
        except _NETWORK as e:
            raise self.gone(e) from e
        except MALFORMED as e:
            raise RunFailed(f"the service at {self.shown} does not speak ComfyUI: {e}", retryable=False) from e
        finally:
            self.current = self._socket = None

    def _ws_url(self) -> URL:
        scheme = "wss" if self._base.scheme == "https" else "ws"
        return (self._base / "ws").with_scheme(scheme).with_query(clientId=self._client_id)

    async def _queue(self, workflow: Workflow, extra_data: dict[str, Any]) -> str:
        body = {"prompt": workflow, "client_id": self._client_id, "extra_data": extra_data}
        async with self.session().post(self._base / "prompt", json=body) as answer:
            text = await answer.read()
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
                    raise RunFailed("the run was interrupted on the service", retryable=False)
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
                async with self.session().ws_connect(self._ws_url(), heartbeat=20, max_msg_size=0) as socket:
                    if record := await self._follow(socket, prompt_id, progress):
                        return record
                deadline = loop.time() + GONE_S
            except _NETWORK:
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
        except _NETWORK as e:
            raise self.gone(e) from e

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        async with self.session().post(self._base / path, json=body, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            answer.raise_for_status()

    # outputs

    async def _fetch(self, record: Record) -> Result:
        outputs: list[Output] = []
        inline = 0
        names: set[str] = set()
        for node_id, file in files_of(record):
            name = PurePosixPath(file.filename).name or "output"
            name = f"{node_id}-{name}" if name in names else name
            names.add(name)
            output = await self._download(file, name, inline_left=INLINE_TOTAL - inline)
            inline += output.size if output.data is not None else 0
            outputs.append(output)
        for node_id, text in texts_of(record):
            data = text.encode()[:INLINE_BYTES]
            outputs.append(
                Output(
                    name=f"{node_id}.txt",
                    content_type="text/plain; charset=utf-8",
                    size=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    data=base64.b64encode(data).decode(),
                )
            )
        return Result(outputs=tuple(outputs))

    async def _download(self, file: File, name: str, *, inline_left: int) -> Output:
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        url = (self._base / "view").with_query(query)
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        async with self.session().get(url) as answer:
            if answer.status != 200:
                raise RunFailed(f"the service made {name} but answered {answer.status} for it", retryable=True)
            async for chunk in answer.content.iter_chunked(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if size > MAX_OUTPUT_BYTES:
                    raise RunFailed(f"the output {name} is larger than {MAX_OUTPUT_BYTES} bytes", retryable=False)
                if size <= INLINE_BYTES:
                    kept += chunk
            content_type = answer.content_type
        if content_type == "application/octet-stream":
            content_type = mimetypes.guess_type(name)[0] or content_type
        small = size <= min(INLINE_BYTES, inline_left)
        return Output(
            name=name,
            content_type=content_type,
            size=size,
            sha256=digest.hexdigest(),
            data=base64.b64encode(kept).decode() if small else None,
            url=None if small else str(url.with_user(None)),
        )
