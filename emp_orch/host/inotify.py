"""Changes in folders, told by the kernel. Source: inotify(7). Linux only."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import errno
import os
import select
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE = 0x0002, 0x0080, 0x0100
_MOVED_FROM, _DELETE, _DELETE_SELF = 0x0040, 0x0200, 0x0400
_ONLYDIR = 0x0100_0000
# What may be asked for: every change, or only what is no longer there.
CHANGED = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
REMOVED = _MOVED_FROM | _DELETE | _DELETE_SELF
_READ = 64 * 1024


class Inotify:
    """Watches folders, not what is below them. Use as a context manager."""

    def __init__(self, mask: int = CHANGED) -> None:
        self._mask = mask | _ONLYDIR
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """Readable when something changed; `wait` makes it quiet again."""
        return self._fd

    def watch(self, folder: Path) -> bool:
        """Hear of changes in `folder`; watching it twice is fine. False when it is gone.

        Raises OSError, such as ENOSPC when the user has no watches left.
        """
        if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), self._mask) >= 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise OSError(number, os.strerror(number), str(folder))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until something changed in a watched folder; False when `timeout_s` passed before."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return False
        try:
            while os.read(self._fd, _READ):
                pass
        except BlockingIOError:
            pass
        return True

    async def stirred(self, within_s: float | None = None) -> bool:
        """As `wait`, for who must not block."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            async with asyncio.timeout(within_s):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return self.wait(0)
