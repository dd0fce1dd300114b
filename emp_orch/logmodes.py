"""Who may read a log: its owner and its group. The kernel takes away more where the umask says so; what is there keeps
the modes that somebody gave it.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE = 0o640
FOLDER = 0o750


def opener(path: str, flags: int) -> int:
    """For `open(…, opener=)`: a log that is not there yet is made so."""
    return os.open(path, flags | os.O_CLOEXEC, FILE)


def make_folder(path: Path) -> None:
    """Make a folder for logs, in one that is there; none where it is there already. Raises OSError."""
    path.mkdir(FOLDER, exist_ok=True)
