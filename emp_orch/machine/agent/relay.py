"""The way to Redis of a machine that has no login there: a socket in its folder, carried through the API.

What comes on the socket goes out as it is, each connection as one WebSocket with the machine's token, and so do the
answers. Whether a command may be asked is for the API to say (api/gate); where that tells the box to wait, nothing is
asked until then. While the agent starts anew, nobody listens: to its workers that is a Redis that is away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import stat
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp

from emp_orch.errors import EmpError
from emp_orch.host import sessions
from emp_orch.machine.agent.patience import Patience
from emp_orch.machine.home.redis_socket import socket_of
from emp_orch.plaintext import one_line
from emp_orch.store.artifacts.api_access import ApiAccess, access_file, read_access

log = logging.getLogger("agent")

REACH_S = 10.0
ENDING_S = 1.0
BEAT_S = 20.0
AT_ONCE_BYTES = 65_536
# Larger than any answer that an agent or worker is given: a job with its payload.
MOST_ANSWERED_BYTES = 64 * 1024**2
LET_IN_NO_MORE = (401, 403)
TOLD_TO_WAIT = (429, 503)
# As Redis says it: redis-py tells by it that the login is refused, and the agent asks the API anew.
_REFUSED = b"-WRONGPASS the API does not know this machine by its token\r\n"


class Relay:
    """Listens while the context is open. Raises EmpError where it cannot."""

    def __init__(self, root: Path, path: str) -> None:
        """`path`: of the gate, below the API's URL."""
        self._socket = socket_of(root)
        self._access = access_file(root)
        self._path = path
        self._server: asyncio.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._told = ""
        # The API is left alone for a while by a box that it told to wait, or that showed a token of nobody: that one.
        self._patience = Patience()
        self._asked_with = ""
        self._is_void = False
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        try:
            _make_private(self._socket.parent)
            self._socket.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._came, str(self._socket), backlog=128)
            finally:
                os.umask(before)
        except OSError as e:
            raise EmpError(f"cannot listen on {self._socket}: {e.strerror}", hint="who owns its folder?") from e
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        if self._session is not None:
            await self._session.close()

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: asyncio would log each one that is cancelled."""
        task = asyncio.create_task(self._serve(reader, writer), name="relay")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now_s = asyncio.get_running_loop().time
        try:
            access = read_access(self._access)
            if access.token != self._asked_with:
                self._asked_with, self._is_void = access.token, False
            elif self._patience.waits(now_s()):
                if self._is_void:
                    await _refuse(reader, writer)
                return  # whoever asks on the box hears that Redis is away
            await self._carried(access, reader, writer)
            self._tell("")
        except aiohttp.WSServerHandshakeError as e:
            if e.status in TOLD_TO_WAIT or e.status in LET_IN_NO_MORE:
                after = e.headers.get("Retry-After", "") if e.headers else ""
                self._patience.told_to_wait(after, now_s(), random.random())  # noqa: S311  # no secret
            self._is_void = e.status in LET_IN_NO_MORE or (self._is_void and e.status in TOLD_TO_WAIT)
            self._tell(f"the API says {e.status}{', it does not know this box by its token' if self._is_void else ''}")
            if self._is_void:
                await _refuse(reader, writer)
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            self._tell(one_line(str(e) or type(e).__name__))
        except EmpError as e:
            self._tell(e.message)
        finally:
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    async def _carried(self, access: ApiAccess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        if self._session is None:
            self._session = self._made(access.owner, aiohttp.ClientTimeout(total=None, sock_connect=REACH_S))
        asking = self._session.ws_connect(
            f"{access.url.rstrip('/')}{self._path}",
            headers={"Authorization": f"Bearer {access.token}"},
            heartbeat=BEAT_S,
            max_msg_size=MOST_ANSWERED_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=ENDING_S),
        )
        async with AsyncExitStack() as open_:
            async with asyncio.timeout(REACH_S):
                ws = await open_.enter_async_context(asking)
            self._patience.let_in()
            self._is_void = False
            tasks = [asyncio.create_task(_out(reader, ws)), asyncio.create_task(_back(ws, writer))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, owner: int | None, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        """The session for all connections to the API."""
        return sessions.to_own(owner, limit=0, timeout=timeout)

    def _tell(self, why: str) -> None:
        """Once, and again when it is another: what asks comes several times a second."""
        if why and why != self._told:
            log.warning("the way to Redis through the API is closed: %s", why)
        self._told = why


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first command, and let the client hear it: what is closed with words unread takes the answer along."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ENDING_S):
            await reader.read(AT_ONCE_BYTES)
            writer.write(_REFUSED)
            while await reader.read(AT_ONCE_BYTES):
                pass


async def _out(reader: asyncio.StreamReader, ws: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(AT_ONCE_BYTES):
        await ws.send_bytes(data)


async def _back(ws: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for received in ws:
        if received.type is not aiohttp.WSMsgType.BINARY:
            return
        writer.write(received.data)
        await writer.drain()


def _make_private(folder: Path) -> None:
    """The machine's own folder is there; another is made for this user alone, and must be his."""
    if folder.exists() or folder.is_symlink():
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(1, f"{folder} is another's")
        return
    folder.mkdir(mode=0o700)
