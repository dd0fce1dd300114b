"""Durations and sizes, as emp.yaml and people write them."""

from __future__ import annotations

import re

# The longest that anybody waits or looks back: thirty years.
MOST_S = 1e9
# The last millisecond that a date can be (the year 9999): what lies beyond is no time.
MAX_MS = 253_402_300_799_999
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)\Z")
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(KiB|MiB|GiB|TiB)\Z")


def seconds(text: str) -> float:
    """`500ms`, `2s`, `5m`, `1h`, `7d` in seconds. Raises ValueError; in an emp.yaml the schema has checked the form."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("not a duration")
    return round(float(match[1]) * _SECONDS[match[2]], 6)


def duration(text: str) -> float:
    """What a person types for a time: as `seconds`, or a number of seconds: 0 to MOST_S. Raises ValueError."""
    try:
        found = float(text)
    except ValueError:
        found = seconds(text)
    if not 0 <= found <= MOST_S:
        raise ValueError("not a duration")
    return found


def show_bytes(count: int) -> str:
    """`count` bytes as a person says it, in the largest unit that leaves it at least 1: 1.5 GiB, 512 MiB, 3 KiB."""
    unit = next((u for u in reversed(_BYTES) if count >= _BYTES[u]), "KiB")
    return f"{round(count / _BYTES[unit], 1):g} {unit}"


def size(text: str) -> int | None:
    """`8GiB` in bytes; None when `text` is no size."""
    match = _SIZE.match(text)
    return round(float(match[1]) * _BYTES[match[2]]) if match else None
