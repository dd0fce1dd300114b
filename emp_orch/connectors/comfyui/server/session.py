"""Requests and sockets to one ComfyUI server, within limits of size and time.

Source: ComfyUI's server.py (https://github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import aiohttp
from yarl import URL

from emp_orch.connectors.base import MALFORMED, RunFailed
from emp_orch.connectors.http.client import NETWORK, base_url, gone, shown
from emp_orch.host import sessions

# A preview picture is the largest.
MAX_MESSAGE_BYTES = 64 * 1024**2
# A run's record repeats its workflow.
MAX_ANSWER_BYTES = 32 * 1024**2
POST_S = 5.0
# How long a server may take to agree to the end of a socket.
CLOSE_S = 1.0


class TooLarge(aiohttp.ClientPayloadError):
    """An answer without end, or one that nobody could keep."""


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body. Raises TooLarge, one of NETWORK, when it is larger than MAX_ANSWER_BYTES."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise TooLarge(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


class Session:
    """The connections to the server at `url`. All of it raises NETWORK errors."""

    def __init__(self, url: str) -> None:
        self._base = base_url(url)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> URL:
        return self._base

    @property
    def shown(self) -> str:
        """The URL without a login."""
        return shown(self._base)

    @property
    def http(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
            self._session = sessions.straight(timeout=timeout)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, *, timeout_s: float = 30.0) -> bytes:
        """The body of a 200 answer."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = self._base / path.lstrip("/")
        async with self.http.get(url, timeout=timeout, allow_redirects=False) as answer:
            answer.raise_for_status()
            return await whole(answer)

    async def send(self, path: str, body: Mapping[str, Any], *, timeout_s: float | None = None) -> tuple[int, bytes]:
        """Status and body of the answer to a POST of `body` as JSON."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=5, sock_read=60)
        url = self._base / path.lstrip("/")
        async with self.http.post(url, json=body, timeout=timeout, allow_redirects=False) as answer:
            return answer.status, await whole(answer)

    async def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float = POST_S) -> None:
        """A POST whose answer says nothing but yes."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = self._base / path.lstrip("/")
        async with self.http.post(url, json=body, timeout=timeout, allow_redirects=False) as answer:
            answer.raise_for_status()

    def view(self, query: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer, of whatever status, for one of its files."""
        return self.http.get((self._base / "view").with_query(query), allow_redirects=False)

    async def listen(self, client_id: str) -> aiohttp.ClientWebSocketResponse:
        """The messages of runs that `client_id` queued, until it is closed."""
        scheme = "wss" if self._base.scheme == "https" else "ws"
        url = (self._base / "ws").with_scheme(scheme).with_query(clientId=client_id)
        closing = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
        return await self.http.ws_connect(url, heartbeat=20, max_msg_size=MAX_MESSAGE_BYTES, timeout=closing)

    def gone(self, cause: BaseException) -> RunFailed:
        return gone(self._base, cause)

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """Turns what the network and the decoder raise into RunFailed."""
        try:
            yield
        except NETWORK as e:
            raise self.gone(e) from e
        except MALFORMED as e:
            raise RunFailed(f"the service at {self.shown} does not speak ComfyUI: {e}", retryable=False) from e
