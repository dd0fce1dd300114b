"""Files that people name, read without waiting for anybody and no further than they may be long."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)
# /dev/null stands where somebody wants a file to be empty. Source: Linux, Documentation/admin-guide/devices.txt.
_NULL = os.makedev(1, 3)


class NotAFile(OSError):
    """A pipe, socket or device: `strerror` says which."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(errno.EINVAL, what, str(path))


def read(path: Path, *, limit: int) -> bytes:
    """The content, or its first `limit` + 1 bytes where it is longer. Raises OSError, NotAFile, ValueError."""
    # A pipe would wait for whoever writes it, at its opening already.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for of_kind, what in _KINDS:
            if of_kind(mode) and found.st_rdev != _NULL:
                raise NotAFile(path, what)
        with open(fd, "rb", closefd=False) as file:  # what was looked at
            return file.read(limit + 1)
    finally:
        os.close(fd)
