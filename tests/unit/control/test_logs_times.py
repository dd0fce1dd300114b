"""When a log line was written, as it says itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from emp_orch.control.logs.times import line_time

UTC_LINES = [
    ('{"at":"2026-11-23T14:29:01.634Z","event":"connected"}', "2026-11-23T14:29:01.634+00:00"),
    ("2026-11-23T14:29:01Z hello", "2026-11-23T14:29:01+00:00"),
    ("2026-11-23T16:29:01.5+02:00 hello", "2026-11-23T14:29:01.5+00:00"),
    ("[2026-11-23 16:29:01.123456789+0200] hello", "2026-11-23T14:29:01.123456+00:00"),
]
LOCAL_LINES = [
    ("2026-11-23 14:29:01,498 INFO supervisord started", (2026, 11, 23, 14, 29, 1, 498_000)),
    ("2026-11-23 14:29:01.307 INFO    emp API", (2026, 11, 23, 14, 29, 1, 307_000)),
    ("16217:M 23 Nov 2026 14:29:01.012 * Ready", (2026, 11, 23, 14, 29, 1, 12_000)),
    ("16217:C 01 Feb 2026 04:09:01.999 # oO0Oo", (2026, 2, 1, 4, 9, 1, 999_000)),
]
NONE = [
    "",
    "Traceback (most recent call last):",
    "2026-13-41 99:00:00 no such day",
    "16217:M 23 Nix 2026 14:29:01.012 *",
]


@pytest.mark.parametrize(("line", "expected"), UTC_LINES)
def test_lines_with_a_zone(line: str, expected: str) -> None:
    at = line_time(line)
    assert at is not None
    assert datetime.fromtimestamp(at, UTC) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(("line", "expected"), LOCAL_LINES)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_lines_in_local_time(line: str, expected: tuple[int, ...], zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert line_time(line) == pytest.approx(datetime(*expected).timestamp())  # type: ignore[arg-type]  # noqa: DTZ001
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("line", NONE)
def test_lines_without_a_time(line: str) -> None:
    assert line_time(line) is None
