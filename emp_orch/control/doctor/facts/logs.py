"""The last words of a program, for a finding."""

from __future__ import annotations

import os
from pathlib import Path

_END = 8 * 1024
MAX_LAST_WORDS = 200


def last_line(log: Path) -> str:
    """The last line of `log` that says anything, in at most MAX_LAST_WORDS characters; never its control characters."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return "it has no log"
    try:
        size = os.fstat(fd).st_size
        end = os.pread(fd, _END, max(0, size - _END))
    finally:
        os.close(fd)
    lines = [line.strip() for line in end.decode("utf-8", "replace").splitlines() if line.strip()]
    text = "".join(c for c in (lines[-1] if lines else "") if c.isprintable())
    return text[:MAX_LAST_WORDS] or "it wrote nothing"
