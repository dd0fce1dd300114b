"""Removes from a service's folders what its runs made and the artifact store has: those files and no other.

All of it blocks: for a thread.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from emp_orch.connectors.comfyui.files.marked import beside, relative_of
from emp_orch.connectors.comfyui.run.isolation import is_marked
from emp_orch.connectors.comfyui.server.folders import Folders
from emp_orch.connectors.comfyui.server.protocol import File
from emp_orch.options.comfyui import Tidy

log = logging.getLogger("emp.worker")

# Copied files that are remembered; the oldest go early when there are more.
MAX_FILES = 20_000
# A look for leftovers: how often, through how much, and how much is removed at once.
LEFT_OUTPUTS_EVERY_S = 3_600.0
MAX_LOOKED_AT = 50_000
MAX_DEPTH = 6
MAX_REMOVED = 2_000
# A model that a run trained is no leftover, whoever died.
_MEDIA = frozenset(
    f".{ending}"
    for ending in (
        *("png", "jpg", "jpeg", "webp", "gif", "avif", "tiff", "exr", "svg", "latent"),
        *("mp4", "webm", "mkv", "mov", "mp3", "wav", "flac", "opus", "ogg"),
    )
)


class _Copied(Struct, frozen=True, kw_only=True):
    file: File
    size: int
    at: float


class Tidier:
    """One service's. `add` what was copied; `sweep` removes what is due."""

    def __init__(self, how: Tidy) -> None:
        self._how = how
        self._copied: deque[_Copied] = deque()
        self._bytes = 0
        self._looked_at = float("-inf")
        self._complained = False

    def add(self, files: list[tuple[File, int]], now: float) -> None:
        """Files of a run that the artifact store has, with their sizes. `now`: seconds of any clock, as in sweep."""
        for file, size in files:
            self._copied.append(_Copied(file=file, size=size, at=now))
            self._bytes += size

    def due(self, now: float) -> bool:
        """Whether a sweep has something to do."""
        return self._next_due(now) or now - self._looked_at >= LEFT_OUTPUTS_EVERY_S

    def _next_due(self, now: float) -> bool:
        if not self._copied:
            return False
        full = self._bytes > self._how.most_bytes or len(self._copied) > MAX_FILES
        return full or now - self._copied[0].at >= self._how.keep_s

    def sweep(self, folders: Folders, now: float, wall: float) -> int:
        """Remove what is due; how many files. `wall`: seconds since the epoch, which files' times are in."""
        removed = 0
        while removed < MAX_REMOVED and self._next_due(now):
            copied = self._copied.popleft()
            self._bytes -= copied.size
            folder = folders.of(copied.file.type)
            if folder and self._remove(folder, relative_of(copied.file), size=copied.size):
                removed += 1
        if now - self._looked_at >= LEFT_OUTPUTS_EVERY_S and folders.output:
            self._looked_at = now
            for path in _leftovers(folders.output, wall - self._how.leftovers_s):
                removed += self._remove(folders.output, path)
                if removed >= MAX_REMOVED:
                    break
        return removed

    def _remove(self, folder: str, relative: str, *, size: int | None = None) -> bool:
        """Unlink one marked regular file within `folder`; of that size, where it is known."""
        with beside(folder, relative) as inside:
            if inside is None:
                return False
            name = Path(relative).name
            try:
                found = os.stat(name, dir_fd=inside, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode) or size not in (None, found.st_size):
                    return False
                os.unlink(name, dir_fd=inside)
            except FileNotFoundError:
                return False
            except OSError as e:
                if not self._complained:
                    log.warning("%s cannot be tidied: %s", folder, e.strerror or e)
                self._complained = True
                return False
        return True


def _leftovers(folder: str, before: float) -> Iterator[str]:
    """Marked files below `folder`, relative to it, that nobody has written to since `before`."""
    todo, looked_at = [("", 0)], 0
    while todo:
        at, depth = todo.pop()
        try:
            entries = os.scandir(Path(folder, at))
        except OSError:
            continue
        with entries:
            for entry in entries:
                looked_at += 1
                if looked_at > MAX_LOOKED_AT:
                    return
                path = str(PurePosixPath(at, entry.name))
                try:
                    if entry.is_dir(follow_symlinks=False):
                        todo += [(path, depth + 1)] if depth < MAX_DEPTH else []
                    elif _is_leftover(entry, before):
                        yield path
                except OSError:
                    continue


def _is_leftover(entry: os.DirEntry[str], before: float) -> bool:
    if not is_marked(entry.name) or PurePosixPath(entry.name).suffix.lower() not in _MEDIA:
        return False
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before
