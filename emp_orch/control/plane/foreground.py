"""Staying beside a fleet that runs, as the main process that a service manager knows: until it is told to end, or the
fleet's control plane ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from enum import StrEnum

from emp_orch.control.plane.supervisord_plane import Plane
from emp_orch.procident import ProcessIdentity, alive, on_end

# Something else may start a control plane that ended: it is looked for so long.
AGAIN_S = 15.0
LOOK_S = 0.2


class End(StrEnum):
    """Why we stay no longer."""

    ASKED = "asked"  # we are to end
    STOPPED = "stopped"  # somebody brought the fleet down
    GONE = "gone"  # its control plane ended by itself


class ServiceManager:
    """The service manager that started us, told by datagrams; none where NOTIFY_SOCKET is not set.

    Source: sd_notify(3).
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def taken_from(cls, environ: dict[str, str] | os._Environ[str]) -> ServiceManager:
        """Take it out of `environ`, which our children inherit: they have nothing to tell it."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def tell(self, **fields: object) -> None:
        """Say `FIELD=value` for each. One that does not listen any more is not told."""
        if not self._address:
            return
        said = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.sendto(said.encode(), self._address)


async def until_asked(plane: Plane, asked: asyncio.Event) -> End:
    """Until `asked`, or until `plane` has ended and nobody started it again."""
    waiting = asyncio.create_task(asked.wait())
    try:
        while (who := await _living(plane, waiting)) is not None:
            ending = asyncio.create_task(_end_of(who))
            await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
        if asked.is_set():
            return End.ASKED
        return End.STOPPED if await asyncio.to_thread(plane.stopped) else End.GONE
    finally:
        waiting.cancel()


async def _living(plane: Plane, waiting: asyncio.Task[bool]) -> ProcessIdentity | None:
    """What stands for `plane`; None when it has ended for good, and when we are to end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + AGAIN_S
    while not waiting.done():
        who = await asyncio.to_thread(plane.identity)
        if who is not None:
            return who
        if loop.time() > until or await asyncio.to_thread(plane.stopped):
            return None
        await asyncio.wait({waiting}, timeout=LOOK_S)
    return None


async def _end_of(who: ProcessIdentity) -> None:
    """Until `who` has ended, told by its pidfd."""
    ended = asyncio.Event()
    with suppress(ProcessLookupError), on_end(who.pid, ended.set, asyncio.get_running_loop()):
        if alive(who):
            await ended.wait()
