"""The WebSocket of a box: whose token, how many at once, until when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from aiohttp import web

from emp_orch.api.context import Context, context
from emp_orch.api.gate.refusals import MOST_MACHINES
from emp_orch.api.gate.session import Session, Shared
from emp_orch.api.gate.standing import FRESH_S, Standing, Stands
from emp_orch.api.joining.limits import guessed
from emp_orch.api.machine_token import bearer
from emp_orch.api.stream.ws_common import opened, run_socket
from emp_orch.errors import EmpError
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.redis.client import TRANSIENT, within
from emp_orch.web.connections import CONNECTIONS
from emp_orch.web.errors import Refused
from emp_orch.web.rate import Rates

log = logging.getLogger(__name__)

PATH = GATE_PATH
# Connections of one machine at once: its agent has three, a worker two; twice that while they start anew.
OF_AGENT, OF_WORKER = 8, 4
# Who comes anew all the time.
COMES, COMES_PER_S = 200, 5.0
# So long a connection outlives its last answer to whose it is, while nobody can tell: another primary of Redis is there
# by then; longer, and who was forgotten meanwhile would stay. A damaged generation hides nobody (gate/standing).
UNTOLD_S = 30.0


class Gate:
    """What the sockets of all boxes share."""

    def __init__(self, ctx: Context) -> None:
        self.standing = Standing(ctx)
        self.shared = Shared(ctx)
        self.comes = Rates(burst=COMES, per_s=COMES_PER_S, most=MOST_MACHINES)
        self.open: Counter[str] = Counter()


GATE = web.AppKey("gate", Gate)


async def gate_socket(request: web.Request) -> web.WebSocketResponse:
    """Carry the commands of the box whose token it is until either end goes, or the token is nobody's any more."""
    gate, token = request.app[GATE], bearer(request)
    stands = await gate.standing.of(token)
    if stands is None:
        guessed(request)
        raise Refused(403, "this token is no machine's that goes through the gate")
    box = stands.box
    name = box.machine_id
    _wait(gate.comes.take(name, time.monotonic()), f"{name} comes anew too often")
    _wait(gate.shared.refusals.shut_out(name, time.monotonic()), f"{name} was refused too often")
    if gate.open[name] >= OF_AGENT + OF_WORKER * len(box.workers):
        raise Refused(429, f"{name} has as many connections as it may", headers={"Retry-After": "5"})
    gate.open[name] += 1
    request.app[CONNECTIONS].known(request.protocol)
    stats = context(request).stats
    stats.gate_sockets += 1
    try:
        return await _served(request, gate, token, stands)
    finally:
        gate.open[name] -= 1
        stats.gate_sockets -= 1
        if not gate.open[name]:
            del gate.open[name]


async def _served(request: web.Request, gate: Gate, token: str, stands: Stands) -> web.WebSocketResponse:
    ws, known = await opened(request), [stands]
    session = Session(context(request), ws, lambda: known[0].box, gate.shared)
    try:
        async with within():
            await session.line.connect()
        return await run_socket(request, ws, session.read(), session.line.pump(), _while_it_is(gate, token, known))
    except TRANSIENT:
        await ws.close(code=1013, message=b"Redis is away")
        return ws
    finally:
        await session.line.aclose()


async def _while_it_is(gate: Gate, token: str, known: list[Stands], untold_s: float = UNTOLD_S) -> None:
    """Return when the token is nobody's, or nobody can tell for too long; what the box has is kept as it is now."""
    while True:
        until_s = known[0].until_s
        await asyncio.sleep(until_s - time.monotonic())
        try:
            async with asyncio.timeout(until_s + untold_s - time.monotonic()):
                stands = await gate.standing.of(token)
        except (EmpError, *TRANSIENT) as e:
            if time.monotonic() >= until_s + untold_s:
                name = known[0].box.machine_id
                log.warning("a connection of %s ends: whose it is cannot be told: %s", name, e or type(e).__name__)
                return
            await asyncio.sleep(FRESH_S)
            continue
        if stands is None:
            return
        known[0] = stands


def _wait(wait_s: float, why: str) -> None:
    if wait_s > 0:
        raise Refused(429, why, headers={"Retry-After": str(int(wait_s) + 1)})
