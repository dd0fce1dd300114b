"""Changes in folders, told by the kernel. Source: inotify(7). Linux only."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import select
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE = 0x0002, 0x0080, 0x0100
_MOVED_FROM, _DELETE = 0x0040, 0x0200
_ONLYDIR = 0x0100_0000
_MASK = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_READ = 64 * 1024


class Inotify:
    """Watches folders, not what is below them. Use as a context manager."""

    def __init__(self) -> None:
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
        if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) >= 0:
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
