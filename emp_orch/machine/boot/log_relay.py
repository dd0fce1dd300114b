"""Repeat a growing log file on stdout, so that whoever started us (`docker logs`, a terminal) sees it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

POLL_S = 0.25
CHUNK = 65536


class LogRelay:
    """What is written to `path` from now on, over its rotations; `rest` repeats what has come since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def _open(self) -> BinaryIO | None:
        with suppress(OSError):
            return self._path.open("rb")
        return None

    async def run(self) -> None:
        """Repeat for ever."""
        while True:
            self.rest()
            await asyncio.sleep(POLL_S)

    def rest(self) -> None:
        """Repeat what is there and was not repeated yet."""
        if self._file is not None:
            self._copy(self._file)
            if self._is_another(self._file):
                self._copy(self._file)  # what was written before it was moved away
                self._file.close()
                self._file = None
        if self._file is None:
            self._file = self._open()
            if self._file is not None:
                self._copy(self._file)

    def _is_another(self, file: BinaryIO) -> bool:
        """Whether a new file stands at the path; none at all may come from a rotation that is not done."""
        ours = os.fstat(file.fileno())
        if ours.st_size < file.tell():
            file.seek(0)  # it was emptied
        with suppress(OSError):
            return self._path.stat().st_ino != ours.st_ino
        return False

    def _copy(self, file: BinaryIO) -> None:
        # A stdout that nobody reads any more must not end the machine.
        with suppress(OSError, ValueError):
            while chunk := file.read(CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
