"""Reads an event stream (HTML standard, §9.2.6): bytes in, events out. Bounded: an endless line is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

MAX_EVENT_BYTES = 64 * 1024 * 1024


class StreamBroken(Exception):
    """What came is no event stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    event: str
    data: str
    id: str


class Parser:
    """Feed it chunks; it keeps what is not yet whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self.last_id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise StreamBroken(f"a line is longer than {MAX_EVENT_BYTES} bytes")
        found = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                found.append(event)
        return found

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
                self._size += len(value)
                if self._size > MAX_EVENT_BYTES:
                    raise StreamBroken(f"an event is longer than {MAX_EVENT_BYTES} bytes")
            case "id" if "\0" not in value:
                self.last_id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return ServerSentEvent(event=event, data="\n".join(data), id=self.last_id) if data else None


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[ServerSentEvent]:
    """The events of an open response, until it ends."""
    parser = Parser()
    async for chunk in response.content.iter_any():
        for event in parser.feed(chunk):
            yield event
