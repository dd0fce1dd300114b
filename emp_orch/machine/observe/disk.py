"""Whether the machine can write where it must: tried now and then, as only that tells of a quota or a failing disk."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from emp_orch.host.freespace import not_written

INTERVAL_S = 5.0
_WORDS = {
    errno.ENOSPC: "no space left on {}",
    errno.EDQUOT: "the quota of this user is used up on {}",
    errno.EROFS: "{} can only be read",
}


class Disk:
    """What the report says of the disks below `folders`; `on_change()` after it changed."""

    def __init__(self, folders: Iterable[Path], on_change: Callable[[], None]) -> None:
        self._folders = sorted(folders)
        self._on_change = on_change
        self.error = ""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            found = await asyncio.to_thread(trouble, self._folders)
            if found != self.error:
                self.error = found
                self._on_change()
            await asyncio.sleep(INTERVAL_S)


def trouble(folders: Iterable[Path]) -> str:
    """Where nothing can be written, and why; of folders on one disk the first. Empty: everywhere. Blocks."""
    found: dict[int, str] = {}
    for folder in folders:
        disk = -1
        try:
            disk = folder.stat().st_dev
            if disk in found:
                continue
            why = not_written(folder)
        except OSError as e:
            why = e
        if why is None or isinstance(why, FileNotFoundError):
            continue  # whoever owns a folder that is gone makes it again, and tells
        words = _WORDS.get(why.errno or 0) or f"{{}}: {os.strerror(why.errno or 0)}"
        found[disk] = words.format(folder)
    return "; ".join(found.values())
