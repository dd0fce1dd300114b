"""supervisord's event listener protocol on stdin and stdout. Source: http://supervisord.org/events.html

An event is acknowledged as soon as it was read, so that supervisord never waits for us.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from msgspec import Struct


class SupervisorEvent(Struct, frozen=True, kw_only=True):
    """`name` is e.g. PROCESS_STATE_RUNNING; `fields` the payload's key:value pairs."""

    name: str
    fields: dict[str, str]


def parse_pairs(text: str) -> dict[str, str]:
    return dict(token.split(":", 1) for token in text.split() if ":" in token)


async def supervisor_events() -> AsyncIterator[SupervisorEvent]:
    """Events until supervisord closes the pipe, which it does when it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    out = sys.stdout.fileno()
    while True:
        os.write(out, b"READY\n")
        header = await reader.readline()
        if not header:
            return
        head = parse_pairs(header.decode())
        try:
            payload = await reader.readexactly(int(head["len"]))
        except asyncio.IncompleteReadError:
            return
        os.write(out, b"RESULT 2\nOK")
        # PROCESS_LOG-like events carry text after the first line; the ones we subscribe to do not.
        yield SupervisorEvent(name=head["eventname"], fields=parse_pairs(payload.decode()))
