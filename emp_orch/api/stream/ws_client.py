"""`/ws/client/{id}`: submit, watch and cancel jobs over one WebSocket.

`submit_job {job}` → `job_submitted`, `job`, and from then on the job's events; `subscribe_progress {job_id}` → `job` as
it is now, then its events; `cancel_job {job_id}` → `job_cancel`; `heartbeat` → `heartbeat_ack`. `request_id` comes back
as it was sent. When a watched job has ended `job` follows, and it is watched no longer; `lane_unworkable` and
`lane_workable` are told of the lanes of watched jobs, each with its `job`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import Context, context
from emp_orch.api.feed.frames import Frame
from emp_orch.api.handlers.job_submit import taken
from emp_orch.api.stream.job_stream import job_frame
from emp_orch.api.stream.ws_common import message, opened, read_messages, run_socket
from emp_orch.errors import EmpError
from emp_orch.jobs.document.states import ENDED
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.web.errors import Refused
from emp_orch.web.guard import GUARD

TAKE_S = 60.0
MAX_WATCHED = 10_000


class SubmitJob(Struct, frozen=True, kw_only=True, tag_field="type", tag="submit_job"):
    """`job` as POST /api/jobs takes it."""

    job: dict[str, Any]
    request_id: str = ""


class SubscribeProgress(Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe_progress"):
    job_id: str
    request_id: str = ""


class CancelJob(Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel_job"):
    job_id: str
    reason: str = ""
    request_id: str = ""


class Heartbeat(Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    request_id: str = ""


ClientMessage = SubmitJob | SubscribeProgress | CancelJob | Heartbeat

_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


class ClientSocket:
    """One client's connection and the jobs it watches."""

    def __init__(self, ctx: Context, ws: web.WebSocketResponse, spend: Callable[[], None]) -> None:
        """`spend` counts a message against what its token may ask; it raises Refused."""
        self._ctx = ctx
        self._ws = ws
        self._spend = spend
        self._watched: dict[str, str] = {}  # job → its lane, '' until it is known
        self._telling = asyncio.Lock()  # an event of a job waits until the job itself was told

    async def read(self) -> None:
        await read_messages(self._ws, _decoder, self._handle)

    async def _handle(self, said: ClientMessage) -> None:
        try:
            self._spend()
            await self._do(said)
        except EmpError as e:
            await self._ws.send_str(message("error", error=e.message, request_id=said.request_id))

    async def _do(self, said: ClientMessage) -> None:
        about = {"request_id": said.request_id}
        match said:
            case SubmitJob():
                checked = parse_submission(said.job, await self._ctx.services.now())
                (asked,) = await self._ctx.inputs.placed([checked])
                done = await self._ctx.queue.submit(asked)
                if not done.same:
                    raise Refused(409, taken(done))
                await self._ws.send_str(message("job_submitted", **about, **msgspec.to_builtins(done)))
                await self._watch(done.job_id)
            case SubscribeProgress():
                await self._ctx.queue.get(said.job_id)
                await self._watch(said.job_id)
            case CancelJob():
                outcome = await self._ctx.queue.cancel(said.job_id, reason=said.reason)
                await self._ws.send_str(message("job_cancel", **about, job_id=said.job_id, outcome=outcome))
            case Heartbeat():
                await self._ws.send_str(message("heartbeat_ack", **about))

    async def _watch(self, job_id: str) -> None:
        """From now on its events are sent; first the job as it is, so that none before is missed."""
        if len(self._watched) >= MAX_WATCHED:
            raise Refused(400, f"one connection watches at most {MAX_WATCHED} jobs")
        async with self._telling:
            self._watched.setdefault(job_id, "")
            await self._tell(job_id)

    async def _tell(self, job_id: str) -> None:
        """Send the job as it is. One that has ended, is gone or damaged is watched no longer."""
        job, frame = await job_frame(self._ctx, job_id)
        if job is None or job.status in ENDED:
            if self._watched.pop(job_id, None) is None:
                return  # whoever asked for it and whoever heard of its end looked at the same time
        elif job_id in self._watched:
            self._watched[job_id] = job.lane
        await self._ws.send_str(frame.ws)

    async def push(self) -> None:
        with self._ctx.hub.subscribe(live=False) as subscription:
            while not subscription.closed:
                if subscription.lost:
                    subscription.restart()
                    async with self._telling:
                        for job_id in list(self._watched):
                            await self._tell(job_id)
                for frame in await subscription.take(TAKE_S):
                    async with self._telling:
                        await self._pass_on(frame)

    async def _pass_on(self, frame: Frame) -> None:
        if (about := frame.job) is not None and about.job_id in self._watched:
            await self._ws.send_str(frame.ws)
            if about.status in ENDED:
                await self._tell(about.job_id)
        elif (lane := frame.lane) is not None:
            waiting = [job_id for job_id, of in self._watched.items() if of == lane]
            if waiting:
                await self._ws.send_str(frame.ws)
            for job_id in waiting:
                await self._tell(job_id)


async def client_socket(request: web.Request) -> web.WebSocketResponse:
    ws = await opened(request)
    socket = ClientSocket(context(request), ws, partial(request.app[GUARD].spend, request))
    return await run_socket(request, ws, socket.read(), socket.push())
