"""Users of this host by name."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def name_of(uid: int) -> str:
    """A user's name; of one that this host has no name for, as in a container that was given a number, that number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def other_owner(path: Path) -> str:
    """Whose `path` is, or of what lies above it the nearest that can be seen; empty where it is our own."""
    for one in (path, *path.parents):
        try:
            owner = one.stat().st_uid
        except OSError:
            continue
        return "" if owner == os.geteuid() else name_of(owner)
    return ""
