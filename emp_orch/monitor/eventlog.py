"""`emp eventlog`: every event of the API's stream as one JSON line in logs/monitorEventStream.log.

Reconnects for ever, and goes on behind the last event it wrote.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import aiohttp
import msgspec

from emp_orch import logmodes
from emp_orch.errors import EmpError
from emp_orch.host import sessions
from emp_orch.layout import Layout
from emp_orch.loglines import LastingFile
from emp_orch.monitor.sse_client import ServerSentEvent, StreamBroken, events_of
from emp_orch.settings import Listen, Settings
from emp_orch.web.limits import RETRY_FIRST_S, RETRY_MAX_S
from emp_orch.web.serve import until_told_to_stop
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

COMPONENT = "monitorEventStream"
MAX_BYTES = 20 * 1024 * 1024
KEPT = 3
# Nobody reads the file sooner.
EVERY_MS = 100
# The stream says something every 15 s; this long a silence means that it is dead.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=40)


class _Rotating(LastingFile):
    """Says once, in one line, that a line could not be written (a full disk), and goes on."""

    _failing = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        self._failing = self._failed

    def handleError(self, record: logging.LogRecord) -> None:  # the base class names it
        self._failed = True
        if not self._failing:
            log.error("cannot write %s: %s", self.baseFilename, sys.exc_info()[1])


class EventFile:
    """Appends lines, flushed one by one; rotates at MAX_BYTES and keeps KEPT files in all."""

    def __init__(self, layout: Layout) -> None:
        path = layout.log(COMPONENT)
        try:
            logmodes.make_folder(path.parent)  # a folder that was moved is not made again
            self._handler = _Rotating(path, maxBytes=MAX_BYTES, backupCount=KEPT - 1, encoding="utf-8")
        except OSError as e:
            raise EmpError(f"cannot write {path}: {e.strerror}", hint="check who owns the logs folder") from e
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, event: ServerSentEvent) -> None:
        line = {"at": rfc3339(now_ms()), "event": event.event, "id": event.id or None, "data": _data(event.data)}
        text = msgspec.json.encode(line).decode()
        self._handler.emit(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    def close(self) -> None:
        self._handler.close()


def _data(text: str) -> object:
    """As it came when it is JSON, else as a string: a line is JSON whatever was sent."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return msgspec.Raw(text.encode())


class Follower:
    """Follows one API's stream into one file. `owner`: the user whose API it must be (sessions.to_own)."""

    def __init__(self, api: Listen, file: EventFile, *, owner: int | None = None) -> None:
        self._api = api
        self._owner = owner
        self._file = file
        self._last_id = ""

    async def run(self) -> None:
        delay_s = RETRY_FIRST_S
        async with sessions.to_own(self._owner) as session:
            while True:
                before = self._last_id
                try:
                    await self._once(session)
                    log.info("the stream ended; connecting again")
                except (aiohttp.ClientError, StreamBroken, TimeoutError) as e:
                    log.warning(
                        "cannot follow %s: %s; trying again in %.1f s", self._api.url, e or type(e).__name__, delay_s
                    )
                if self._last_id != before:
                    delay_s = RETRY_FIRST_S
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _once(self, session: aiohttp.ClientSession) -> None:
        headers = {"Accept": "text/event-stream"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        if self._api.token:
            headers["Authorization"] = f"Bearer {self._api.token}"
        url = f"{self._api.url}/api/events/monitor?every={EVERY_MS}"
        async with session.get(url, headers=headers, timeout=TIMEOUT) as response:
            response.raise_for_status()
            log.info("following %s", url)
            async for event in events_of(response):
                self._file.write(event)
                self._last_id = event.id or self._last_id


async def run(layout: Layout, settings: Settings) -> None:
    """Follow until SIGTERM. Raises EmpError when the file cannot be written."""
    file = EventFile(layout)
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(Follower(settings.api, file, owner=settings.uid).run(), name="follow the API")
            await until_told_to_stop()
            following.cancel()
    finally:
        file.close()
