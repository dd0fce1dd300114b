"""Requests to one service: its own host only, within limits of size and time."""

from __future__ import annotations

import json as json_module
import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any

import aiohttp
from yarl import URL

from emp_orch.connectors.base import RunFailed
from emp_orch.host import ports, sessions
from emp_orch.options.base import CannotLoad

NETWORK = (aiohttp.ClientError, TimeoutError, OSError)
# An answer that is read as a whole; outputs are streamed.
MAX_ANSWER_BYTES = 16 * 1024**2
# Shorter ones are words, as `Bearer` is.
MIN_HIDDEN_WORD = 8
_CONNECT_S = 5.0
_USE = "use http://HOST:PORT"
_READ_S = 60.0
_MAX_REDIRECTS = 5


def base_url(url: str) -> URL:
    """Raises CannotLoad unless `url` is the address of a service; a login in it is not told."""
    login = "@" in url
    told = f"***@{url.rpartition('@')[2]}" if login else url
    try:
        base = URL(url)
        base.port  # noqa: B018 (a bad port is noticed only when it is read)
    except ValueError as e:
        raise CannotLoad(f"{told!r} is not the URL of a service{'' if login else f': {e}'}", hint=_USE) from e
    if base.scheme not in ("http", "https") or not base.host:
        raise CannotLoad(f"{told!r} is not the URL of a service", hint=_USE)
    return base


def shown(base: URL) -> str:
    """The URL without a login."""
    return str(base.with_user(None)).rstrip("/")


def gone(base: URL, cause: BaseException) -> RunFailed:
    """What to say of a service that `cause` kept from answering."""
    words = str(cause) or type(cause).__name__
    reached = not isinstance(cause, aiohttp.ClientConnectorError)
    if not reached and base.host == ports.LOOPBACK and (place := ports.elsewhere(base.port or 0)):
        words = f"{words}; {place}"
    return RunFailed(f"the service at {shown(base)} does not answer: {words}", retryable=True, reached=reached)


class Requests:
    """What goes to one service, with the same headers each time."""

    def __init__(self, base: URL, headers: Mapping[str, str], secrets: Sequence[str] = ()) -> None:
        """`secrets`: what stands in `headers` that nobody may learn, also where the service says it back."""
        self._base = base
        self._headers = dict(headers)
        self._hidden = _forms_of([*secrets, base.password or ""])
        self._session: aiohttp.ClientSession | None = None

    @property
    def shown(self) -> str:
        """The URL without a login."""
        return shown(self._base)

    def gone(self, cause: BaseException) -> RunFailed:
        return gone(self._base, cause)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def url(self, path: str) -> URL:
        return URL(str(self._base).rstrip("/") + path)

    def own(self, link: str, seen_at: URL | None = None) -> URL:
        """`link`, found at `seen_at`, as a URL of this service. Raises RunFailed when it is another's."""
        try:
            url = (seen_at or self.url("/")).join(URL(link))
            ours = url.scheme in ("http", "https") and url.origin() == self._base.origin()
        except ValueError:
            ours = False
        if not ours:
            raise RunFailed(f"the service links to {link[:200]!r}, which is not on {self.shown}", retryable=False)
        return url

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        url: URL,
        *,
        json: Any = None,
        timeout_s: float | None = None,
        redirects: int = _MAX_REDIRECTS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, of whatever status. Redirects are followed on the same host. Raises NETWORK errors, RunFailed."""
        if self._session is None:
            self._session = sessions.straight(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())
        read_s = None if timeout_s is None and json is not None else _READ_S
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S, sock_read=read_s)
        for _ in range(redirects + 1):
            way = sessions.way_to(url)
            async with self._session.request(
                method, url, json=json, timeout=timeout, allow_redirects=False, **way
            ) as answer:
                target = answer.headers.get("Location") if 300 <= answer.status < 400 and redirects else None
                if target is None:
                    yield answer
                    return
                url = self.own(target, url)
                if answer.status in (301, 302, 303):
                    method, json = "GET", None
        raise RunFailed(f"the service at {self.shown} redirects without end", retryable=False)

    async def read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The whole body, with our secrets struck out: it may become a result or an error. Raises as read_whole."""
        body = await read_whole(answer)
        for secret in self._hidden:
            body = body.replace(secret, b"***")
        return body


def _forms_of(secrets: Sequence[str]) -> tuple[bytes, ...]:
    """How secrets may stand in an answer: whole or a word of them, plain or as JSON. Longest first."""
    words = {word for secret in secrets for word in (secret, *secret.split()) if len(word) >= MIN_HIDDEN_WORD}
    found = {form.encode(errors="surrogateescape") for word in words for form in (word, json_module.dumps(word)[1:-1])}
    return tuple(sorted(found, key=len, reverse=True))


async def read_whole(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises RunFailed when it is larger than MAX_ANSWER_BYTES."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise RunFailed(f"the service's answer is larger than {MAX_ANSWER_BYTES} bytes", retryable=False)
    return bytes(body)


def is_json(answer: aiohttp.ClientResponse) -> bool:
    return answer.content_type == "application/json" or answer.content_type.endswith("+json")


def name_of(answer: aiohttp.ClientResponse) -> str:
    """What the answer calls its file, or the end of its URL, with an ending that fits its type."""
    said = answer.content_disposition.filename if answer.content_disposition else None
    name = said or PurePosixPath(answer.url.path).name or "output"
    if not PurePosixPath(name).suffix:
        name += mimetypes.guess_extension(answer.content_type) or ""
    return name
