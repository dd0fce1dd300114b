"""Time stamps of jobs in memory that processes share: slot i is job i. A stamp costs under a microsecond."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_SLOT = struct.Struct("<q")


class Marks:
    """Slots of CLOCK_MONOTONIC nanoseconds in the file `path`; 0 means not stamped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @classmethod
    def create(cls, path: Path, slots: int) -> Marks:
        with path.open("wb") as file:
            file.truncate(slots * _SLOT.size)
        return cls(path)

    def stamp(self, slot: int) -> None:
        _SLOT.pack_into(self._map, slot * _SLOT.size, time.monotonic_ns())

    def read(self, first: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}q", self._map, first * _SLOT.size)

    def clear(self) -> None:
        self._map[:] = bytes(len(self._map))
