"""A notice: this box is to be gone soon. Left in the machine's folder, for whoever works there.

Whoever got it says until when jobs may run; who hands one back leaves a mark, so that it can be told how many went.
"""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

FOLDER = "notice"
# Of the time that the box has, so much is for what comes after the jobs: services end, the last word is said.
SHARE_AFTER = 1 / 3
MOST_AFTER_S = 10.0


def jobs_s(notice_s: float) -> float:
    """How long jobs may run on in a box that has `notice_s`."""
    return max(0.0, notice_s - min(MOST_AFTER_S, notice_s * SHARE_AFTER))


def clear(machine: Path) -> None:
    """Of a former life."""
    shutil.rmtree(machine / FOLDER, ignore_errors=True)


def give(machine: Path, notice_s: float | None) -> None:
    """Say it; None: there is time enough for whatever is configured. A full disk keeps nobody from ending."""
    with suppress(OSError):
        (machine / FOLDER).mkdir(exist_ok=True)
        if notice_s is not None:
            (machine / FOLDER / "until").write_text(f"{time.time() + jobs_s(notice_s):.3f}")


def is_given(machine: Path) -> bool:
    """Whether the box was told to end, in this life of its supervisord."""
    return (machine / FOLDER).is_dir()


def left_s(machine: Path | None, most_s: float) -> float:
    """How long a job may run on in `machine`, `most_s` at most, which it is where nobody said less."""
    if machine is None:
        return most_s
    try:
        until_s = float((machine / FOLDER / "until").read_text()[:32])
    except (OSError, ValueError):
        return most_s
    return max(0.0, min(most_s, until_s - time.time()))


def note_returned(machine: Path | None) -> None:
    """One job went back, because of a notice if there is one."""
    if machine is not None:
        with suppress(OSError):
            (machine / FOLDER / f"back-{secrets.token_hex(8)}").touch()


def returned(machine: Path) -> int:
    """How many jobs went back."""
    return sum(1 for _ in (machine / FOLDER).glob("back-*"))
