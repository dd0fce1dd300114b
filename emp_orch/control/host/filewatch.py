"""Waits until the content of some files is another, however an editor writes them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.host import plainfile
from emp_orch.host.inotify import Inotify

# A burst of writes is one change: it is over when nothing was written for this long, or has gone on for too long.
SETTLE_S = 0.3
SETTLE_MOST_S = 3.0
_COMPARED_BYTES = 8 * 1024 * 1024


class FileWatch:
    """Holds what the files were at the last `mark`. Use as a context manager, in one task at a time."""

    def __init__(self) -> None:
        self._changes = Inotify()
        self._files: frozenset[Path] = frozenset()
        self._seen: dict[Path, bytes] = {}

    def __enter__(self) -> FileWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.__exit__()

    def watch(self, files: Iterable[Path]) -> None:
        """Watch `files` from now on, also those that are not there; what is new is known as it is now.

        Raises EmpError when the kernel gives us no watch.
        It is their folders that are watched: a file that is replaced is another file to the kernel.
        """
        self._files = frozenset(files)
        try:
            for folder in {folder for f in self._files for folder in (f.parent, f.resolve().parent)}:
                self._changes.watch(folder)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EACCES):
                raise
            raise EmpError(
                f"cannot watch {e.filename}: {e.strerror}",
                hint="raise fs.inotify.max_user_watches and max_user_instances, or leave out --watch",
            ) from e
        self._seen = {**self._content(), **self._seen}

    def mark(self) -> None:
        """Take what the files are now as known. To be called before they are read, so that no change is missed."""
        self._seen = self._content()

    async def changed(self) -> None:
        """Until the files are otherwise than at the last `mark`, and whoever writes them has come to rest."""
        while True:
            if self._differs():
                await self._settle()
                if self._differs():
                    return
            await self._changes.stirred()

    def _differs(self) -> bool:
        now = self._content()
        return any(now[f] != self._seen[f] for f in now)

    def _content(self) -> dict[Path, bytes]:
        """A digest of each file; of one that cannot be read, nothing."""
        found = dict.fromkeys(self._files, b"")
        for file in self._files:
            with suppress(OSError):
                found[file] = hashlib.sha256(plainfile.read(file, limit=_COMPARED_BYTES)).digest()
        return found

    async def _settle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_MOST_S):
                while await self._changes.stirred(SETTLE_S):
                    pass
