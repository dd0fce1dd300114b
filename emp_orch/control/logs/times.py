"""When a log line was written, as far as it says so itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# 2026-11-23 14:29:01,498 · 2026-11-23T14:29:01.634Z · [2026-11-23 14:29:01] · {"at":"2026-11-23T14:29:01.634Z"
_ISO = re.compile(
    r'(?:\{"at":")?\[?(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?', re.ASCII
)
# 16217:M 23 Nov 2026 14:29:01.012 # …  (Redis and Valkey)
_REDIS = re.compile(r"\d+:[A-Z] (\d\d) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{3})", re.ASCII)


def line_time(line: str) -> float | None:
    """Seconds since the epoch at the start of `line`; None when it starts with no time that makes sense.

    A time without a zone is this host's.
    """
    try:
        if found := _ISO.match(line):
            year, month, day, hour, minute, second, fraction, zone = found.groups()
            micros = int((fraction or "0")[:6].ljust(6, "0"))
            at = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros)  # noqa: DTZ001
            return _zoned(at, zone).timestamp()
        if found := _REDIS.match(line):
            day, name, year, hour, minute, second, millis = found.groups()
            at = datetime(  # noqa: DTZ001  # local time, as Redis writes it
                int(year), _MONTHS.index(name) + 1, int(day), int(hour), int(minute), int(second), int(millis) * 1000
            )
            return at.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _zoned(at: datetime, zone: str | None) -> datetime:
    if zone is None:
        return at
    if zone == "Z":
        return at.replace(tzinfo=UTC)
    return datetime.strptime(f"{at:%Y-%m-%d %H:%M:%S.%f} {zone.replace(':', '')}", "%Y-%m-%d %H:%M:%S.%f %z")
