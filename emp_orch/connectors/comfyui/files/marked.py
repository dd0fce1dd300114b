"""A run's own files in a service's folders, where those are of this host: found by the mark in their names.

A file is a run's by its mark (isolation), which nobody else writes; so the folder of another host, or of another
container, that is called alike holds none. No link is followed, and nothing outside the folder is touched. All of it
blocks: for a thread, but for a file of at most WITHOUT_THREAD_BYTES that was written just now.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from emp_orch.connectors.comfyui.run.isolation import is_marked
from emp_orch.connectors.comfyui.server.protocol import File

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Larger files are streamed by the service.
HERE_BYTES = 4 * 1024**2
# As much is read in less time than a thread takes to begin.
WITHOUT_THREAD_BYTES = 64 * 1024


def relative_of(file: File) -> str:
    """Where a file is below the folder of its type."""
    return str(PurePosixPath(file.subfolder) / PurePosixPath(file.filename).name)


@contextmanager
def beside(folder: str, relative: str) -> Iterator[int | None]:
    """A descriptor of the folder that holds the marked file `relative`; None where it is no place within `folder`."""
    inside = _opened(folder, relative)
    try:
        yield inside
    finally:
        if inside is not None:
            os.close(inside)


def _opened(folder: str, relative: str) -> int | None:
    *above, name = PurePosixPath(relative).parts or ("",)
    if not is_marked(name) or "\0" in relative or any(part in ("/", "..") for part in above):
        return None
    try:
        inside = os.open(folder, _FOLDER)
        for part in above:
            outer = inside
            try:
                inside = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
            finally:
                os.close(outer)
    except (OSError, ValueError):  # it is not there, or a link, or no name at all
        return None
    return inside


def content_of(folder: str, file: File, most: int = HERE_BYTES) -> bytes | None:
    """What a run's file holds; None where it is not to be had here, is larger, or is no plain file of one name."""
    relative = relative_of(file)
    with beside(folder, relative) as inside:
        if inside is None:
            return None
        try:
            found = os.open(PurePosixPath(relative).name, _FILE, dir_fd=inside)
            with os.fdopen(found, "rb", buffering=0) as opened:
                about = os.fstat(found)
                plain = stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_size <= most
                return opened.read(most) if plain else None
        except (OSError, ValueError):
            return None
