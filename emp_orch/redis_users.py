"""What the user of one machine at Redis is called."""

from __future__ import annotations

import hashlib


def user_of(fleet: str, machine_id: str, *, prefix: str = "", database: int = 0) -> str:
    """Names hold no colon, so no two machines have the same.

    Users are the server's: a fleet of the same name that has other keys there, or another database, is told apart.
    """
    if (prefix, database) == ("", 0):
        return f"emp:{fleet}:{machine_id}"
    place = hashlib.sha256(f"{database} {prefix}".encode()).hexdigest()[:8]
    return f"emp:{fleet}@{place}:{machine_id}"
