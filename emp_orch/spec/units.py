"""Durations and sizes, as emp.yaml writes them."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)\Z")
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(KiB|MiB|GiB|TiB)\Z")


def seconds(text: str) -> float:
    """`500ms`, `2s`, `5m`, `1h` in seconds. The schema has checked the form."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("not a duration")
    return round(float(match[1]) * _SECONDS[match[2]], 6)


def size(text: str) -> int | None:
    """`8GiB` in bytes; None when `text` is no size."""
    match = _SIZE.match(text)
    return round(float(match[1]) * _BYTES[match[2]]) if match else None
