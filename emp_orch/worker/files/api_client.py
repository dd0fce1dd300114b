"""What a worker asks of the fleet's API about the files of its runs: tried again while the API is away, for a while."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from emp_orch.errors import EmpError
from emp_orch.host import sessions
from emp_orch.plaintext import one_line
from emp_orch.store.artifacts.api_access import ApiAccess, read_access
from emp_orch.web.limits import STALL_S

log = logging.getLogger("emp.worker")

# How long the API may be away; the job's own time limit holds beside it.
AWAY_S = 600.0
PAUSE_S = 0.5
MAX_PAUSE_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
_MAX_WORDS = 500
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=STALL_S)
_NETWORK = (aiohttp.ClientError, TimeoutError, OSError)
# It may take the same request later.
_LATER = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Away(EmpError):
    """The API does not answer, or not yet. `after_s`: how long it wants to be left alone."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class RefusedByApi(EmpError):
    """The API's answer is no, in its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Error(Struct, frozen=True):
    error: str = ""


class ApiClient:
    """The API by what stands in a machine's `access` file, read anew each time: its token may change."""

    def __init__(self, access: Path) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def patiently(self, what: str, ask: Callable[[], Awaitable[T]], *, away_s: float = AWAY_S) -> T:
        """The answer of `ask`, tried again while the API is away. Raises RefusedByApi, and Away in the end."""
        loop = asyncio.get_running_loop()
        give_up, pause, told = loop.time() + away_s, PAUSE_S, False
        while True:
            try:
                return await ask()
            except Away as e:
                pause_s = max(pause, min(e.after_s, MAX_PAUSE_S))
                if loop.time() + pause_s > give_up:
                    raise
                if not told:
                    log.warning("%s; %s waits for it", e.message, what)
                told = True
            await asyncio.sleep(pause_s)
            pause = min(pause * 2, MAX_PAUSE_S)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer. Raises RefusedByApi, Away; EmpError where nobody said where the API is."""
        access = read_access(self._access)
        session = self._session = self._session or sessions.to_own(
            access.owner, timeout=_TIMEOUT, auto_decompress=False
        )
        try:
            async with session.request(
                method,
                URL(f"{access.url.rstrip('/')}{path}", encoded=True),
                headers={"Authorization": f"Bearer {access.token}", "Accept-Encoding": "identity", **(headers or {})},
                data=body,
                allow_redirects=False,  # the token is for this address only
                ssl=ssl.create_default_context(cafile=access.ca) if access.ca else True,
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise await _refusal(access, answer)
                yield answer
        except _NETWORK as e:
            raise away(access, e) from e
        except ValueError as e:  # no URL
            raise RefusedByApi(0, f"the API's URL in {self._access} is none") from e

    async def put(self, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> bytes:
        """The answer to `body`. Raises as `request`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(STALL_S) as limit:

                async def watched() -> AsyncIterator[bytes]:
                    async for chunk in body:
                        limit.reschedule(loop.time() + STALL_S)
                        yield chunk

                async with self.request("PUT", path, headers=headers, body=watched()) as answer:
                    return await _all(answer)
        except TimeoutError as e:
            raise away(read_access(self._access), e) from e


def away(access: ApiAccess, cause: Exception) -> Away:
    return Away(f"the API at {access.url} does not answer: {one_line(str(cause) or type(cause).__name__)}")


async def _all(answer: aiohttp.ClientResponse) -> bytes:
    """The answer as a whole; what is longer than any of ours is cut."""
    raw = bytearray()
    async for chunk in answer.content.iter_any():
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            break
    return bytes(raw)


async def _refusal(access: ApiAccess, answer: aiohttp.ClientResponse) -> EmpError:
    raw = await _all(answer)
    try:
        said = msgspec.json.decode(raw, type=_Error).error
    except msgspec.MsgspecError:
        said = ""
    words = one_line(said)[:_MAX_WORDS] or f"it answered {answer.status} {answer.reason or ''}".rstrip()
    if answer.status in _LATER:
        after = answer.headers.get("Retry-After", "")
        after_s = float(after) if after.isascii() and after.isdecimal() and len(after) < 6 else 0.0
        return Away(f"the API at {access.url}: {words}", after_s=after_s)
    return RefusedByApi(answer.status, words)
