"""A run that failed because a disk was full: known by the words of whoever met it.

It is worth another try, whatever the connector made of it: elsewhere there may be room, and here later. Services pass
on what the operating system said, in a sentence of their own.
"""

from __future__ import annotations

import re

from msgspec import structs

from emp_orch.jobs.document.model import JobError

_SAID = re.compile(
    r"no space left (?:on|in) |disk quota exceeded|\bE(?:NOSPC|DQUOT)\b|\[Errno (?:28|122)\]|\(os error (?:28|122)\)"
    r"|database or disk is full",
    re.IGNORECASE,
)
# As Python writes an OSError: [Errno 28] No space left on device: '/srv/out/a.png'
_FILE = re.compile(r"(?:No space left on device|Disk quota exceeded): ['\"](?P<file>/[^'\"]+)['\"]")
# As emp says it of an artifact store: no space left in file:///srv/artifacts
_STORE = re.compile(r"no space left in (?P<scheme>[a-z0-9+.-]+)://(?P<folder>\S*?)[;,.]?(?:\s|$)")
_LOCAL = ("file", "local")


def is_of_full_disk(error: JobError) -> bool:
    """Whether a disk without room, or a quota that is used up, made the run fail."""
    return _SAID.search(error.message) is not None


def folder_in(error: JobError) -> str:
    """The folder without room, where the words name it; else empty."""
    if found := _FILE.search(error.message):
        return found["file"].rpartition("/")[0] or "/"
    found = _STORE.search(error.message)
    return found["folder"] if found and found["scheme"] in _LOCAL else ""


def told(error: JobError, *, machine: str, folder: str) -> JobError:
    """`error` with where it was, and worth another try. `folder` '': nobody knows. A far store is on no machine."""
    far = (found := _STORE.search(error.message)) is not None and found["scheme"] not in _LOCAL
    where = f"{machine} has no space left{f' in {folder}' if folder else ''}: "
    return structs.replace(error, message=("" if far else where) + error.message, retryable=True)
