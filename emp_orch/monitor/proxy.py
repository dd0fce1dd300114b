"""Passes the page's calls on to the API as they are: bodies and event streams byte by byte, WebSockets frame by frame.

It adds nothing but the API's token, and that only when the monitor has checked a token of its own. A page whose role is
read passes on what only looks.
"""

from __future__ import annotations

import asyncio
import io
import logging

import aiohttp
from aiohttp import WSMsgType, web
from yarl import URL

from emp_orch.roles import Role
from emp_orch.settings import Listen
from emp_orch.web.errors import Refused, error_response

log = logging.getLogger(__name__)

PREFIXES = ("/api/", "/ws/")
UPLOAD = "/api/assets"
LOOKING_SOCKET = "/ws/monitor/"
PATHS = frozenset({"/health", "/ready", "/version", "/openapi.json"})
# The API sends something at least every 15 s, and lets a command wait 60 s.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=90)
MAX_WS_BYTES = 64 * 1024 * 1024

# RFC 9110 §7.6.1, and what this hop decides itself.
DROPPED = frozenset(
    {
        *(
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
        ),
        *("upgrade", "host", "content-length", "origin", "cookie", "set-cookie"),
        *("server", "date"),
    }
)


def is_api_call(request: web.Request) -> bool:
    return request.path in PATHS or request.path.startswith(PREFIXES)


def only_looks(method: str, path: str, *, websocket: bool) -> bool:
    """Whether a call of the API can change nothing; `path` is the one that the API gets."""
    return path.startswith(LOOKING_SOCKET) if websocket else method in ("GET", "HEAD")


class Proxy:
    """`own_token`: the monitor checked one itself, so the caller's credentials are not the API's. `role`: what may be
    asked through it.
    """

    def __init__(self, session: aiohttp.ClientSession, api: Listen, *, own_token: bool, role: Role) -> None:
        self._session = session
        self._api = api
        self._own_token = own_token
        self._role = role
        self._open: set[web.WebSocketResponse] = set()
        self._streams: set[asyncio.Task[object]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        url = URL(self._api.url + self._url(request))
        if self._role is Role.READ and not only_looks(request.method, url.path, websocket=websocket):
            raise Refused(403, "this page only looks: monitor.role is read in emp.yaml")
        try:
            return await (self._websocket if websocket else self._http)(request, url)
        except (aiohttp.ClientConnectionError, aiohttp.ServerTimeoutError, TimeoutError) as e:
            raise Refused(
                502, f"the API at {self._api.url} does not answer", hint="see `emp status` and logs/api.log"
            ) from e

    def _headers(self, request: web.Request) -> dict[str, str]:
        headers = {
            k: v for k, v in request.headers.items() if k.lower() not in DROPPED and not k.lower().startswith("sec-")
        }
        if self._own_token:
            headers.pop("Authorization", None)
            if self._api.token:
                headers["Authorization"] = f"Bearer {self._api.token}"
        return headers

    def _url(self, request: web.Request) -> str:
        query = request.rel_url.query.copy()
        if self._own_token:
            query.popall("token", None)
        return str(request.rel_url.with_query(query).with_fragment(None))

    async def _http(self, request: web.Request, url: URL) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            url,
            headers=self._headers(request),
            data=await _body_of(request),
            allow_redirects=False,
            # The API packs for the page, not for this hop.
            skip_auto_headers=("Accept-Encoding",),
            timeout=TIMEOUT,
        ) as answer:
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in DROPPED}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            task = asyncio.current_task()
            if task is not None:
                self._streams.add(task)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except (aiohttp.ClientError, TimeoutError):
                # The head is sent: all that is left is to cut the stream, so that the client knows it is not whole.
                if request.transport is not None:
                    request.transport.abort()
            finally:
                if task is not None:
                    self._streams.discard(task)
            return response

    async def _websocket(self, request: web.Request, url: URL) -> web.StreamResponse:
        try:
            upstream = await self._session.ws_connect(url, headers=self._headers(request), max_msg_size=MAX_WS_BYTES)
        except aiohttp.WSServerHandshakeError as e:
            return error_response(e.status, f"the API refused the WebSocket: {e.status}")
        async with upstream:
            ws = web.WebSocketResponse(max_msg_size=1024 * 1024)
            await ws.prepare(request)
            self._open.add(ws)
            try:
                await _bridge(ws, upstream)
            finally:
                self._open.discard(ws)
        return ws

    async def close(self) -> None:
        """End every stream and WebSocket that is still open."""
        for ws in list(self._open):
            await ws.close(code=1001, message=b"the monitor is stopping")
        for task in list(self._streams):
            task.cancel()


async def _body_of(request: web.Request) -> io.BytesIO | aiohttp.StreamReader | None:
    """Files go through as they come; the API bounds them. All else is read first, within the monitor's own bound."""
    if not request.body_exists:
        return None
    return request.content if request.path == UPLOAD else io.BytesIO(await request.read())


async def _bridge(ws: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
    there = asyncio.create_task(_copy(ws, upstream), name="ws to the API")
    back = asyncio.create_task(_copy(upstream, ws), name="ws from the API")
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        await ws.close()


async def _copy(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        match message.type:
            case WSMsgType.TEXT:
                await target.send_str(message.data)
            case WSMsgType.BINARY:
                await target.send_bytes(message.data)
