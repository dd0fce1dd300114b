"""Ends in words, what supervisord's log tells of them, and what of a program's log may be shown."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from emp_orch.fleet.drift.exits import MAX_LINE, MAX_LINES, how, how_in_short, lasted, told
from emp_orch.fleet.model.observed import ProgramEnd
from emp_orch.lifemark import leave_log_mark
from emp_orch.runtimes.last_words import HIDDEN, REMOVED_LINE, LogPosition, began, last_words, redacted, shown
from emp_orch.runtimes.process import exit_files
from emp_orch.runtimes.process.supervisor import ProcessInfo
from emp_orch.runtimes.process.supervisor_log import LoggedEnd, last_end

# As supervisord 4.3 writes it; 4.2 is alike.
LOG = """\
2026-11-28 20:00:00,100 INFO supervisord started with pid 1
2026-11-28 20:00:01,000 INFO spawned: 'a' with pid 10
2026-11-28 20:00:01,200 WARN exited: a (exit status 3; not expected)
2026-11-28 20:00:02,000 INFO spawned: 'a' with pid 11
2026-11-28 20:00:02,100 INFO spawned: 'b' with pid 12
2026-11-28 20:00:03,000 INFO success: a entered RUNNING state, process has stayed up for > than 1 seconds (startsecs)
2026-11-28 20:05:02,000 WARN exited: a (terminated by SIGSEGV (core dumped); not expected)
2026-11-28 20:05:03,000 INFO spawned: 'a' with pid 13
2026-11-28 20:05:04,000 INFO stopped: a (terminated by SIGTERM)
2026-11-28 20:05:05,000 INFO spawned: 'a' with pid 14
2026-11-28 20:05:06,000 INFO exited: b (exit status 0; expected)
"""


def at(text: str) -> int:
    return int(time.mktime(time.strptime(f"2026-11-28 {text}", "%Y-%m-%d %H:%M:%S"))) * 1000


@pytest.mark.parametrize(
    ("name", "pid", "expected"),
    [
        ("a", 10, (10, "20:00:01", 200, 200, 3, "")),
        ("a", 11, (11, "20:05:02", 0, 300_000, None, "SIGSEGV")),
        ("a", 0, (11, "20:05:02", 0, 300_000, None, "SIGSEGV")),
        ("b", 12, (12, "20:05:06", 0, 303_900, 0, "")),
        ("a", 13, None),  # was stopped, which somebody asked for
        ("a", 14, None),  # lives
        ("c", 0, None),
    ],
)
def test_how_a_program_ended_is_in_supervisords_log(
    tmp_path: Path, name: str, pid: int, expected: tuple[int, str, int, int, int | None, str] | None
) -> None:
    log = tmp_path / "machine-m.log"
    log.write_text(LOG)
    found = last_end(log, name, pid)
    if expected is None:
        assert found is None
        return
    of, when, ms, lived, status, signal = expected
    end_ms = at(when) + ms
    assert found == LoggedEnd(pid=of, at_ms=end_ms, began_ms=end_ms - lived, exit_status=status, signal=signal)


def test_one_whose_start_is_no_longer_in_the_log_and_one_in_the_rotated_log(tmp_path: Path) -> None:
    log = tmp_path / "machine-m.log"
    log.write_text("2026-11-28 20:05:02,000 WARN exited: a (terminated by SIGKILL; not expected)\n")
    found = last_end(log, "a", 7)
    assert found is not None and (found.pid, found.began_ms, found.signal) == (7, 0, "SIGKILL")
    log.rename(tmp_path / "machine-m.log.1")
    log.write_text("2026-11-28 20:05:03,000 INFO spawned: 'a' with pid 8\n")
    found = last_end(log, "a")
    assert found is not None and found.signal == "SIGKILL"
    assert last_end(tmp_path / "none.log", "a") is None


def test_what_a_program_left_is_told_of_its_own_end_only(tmp_path: Path) -> None:
    log = tmp_path / "machine-m.log"
    log.write_text(
        "2026-11-29 20:05:00,000 INFO spawned: 'a' with pid 7\n"
        "2026-11-29 20:05:01,000 INFO left: 'a' with pid 7: 2 processes: nginx (8), nginx (9)\n"
        "2026-11-29 20:05:02,000 INFO exited: a (exit status 0; expected)\n"
    )
    found = last_end(log, "a")
    assert found is not None and (found.exit_status, found.left) == (0, "nginx (8), nginx (9)")
    with log.open("a") as file:
        file.write("2026-11-29 20:05:03,000 INFO spawned: 'a' with pid 10\n")
        file.write("2026-11-29 20:05:04,000 INFO left: 'b' with pid 11: 1 processes: other (12)\n")
        file.write("2026-11-29 20:05:05,000 WARN exited: a (exit status 3; not expected)\n")
    found = last_end(log, "a")
    assert found is not None and (found.exit_status, found.left) == (3, "")


@pytest.mark.parametrize(
    ("end", "words", "short"),
    [
        (ProgramEnd(at_ms=1, exit_status=3), "exited with status 3; it said nothing", "status 3"),
        (
            ProgramEnd(at_ms=1, signal="SIGSEGV", lived_ms=90_000, lines=("one", "two")),
            "was ended by SIGSEGV (a crash in native code), 2 min after its start; last words: two",
            "SIGSEGV",
        ),
        (ProgramEnd(at_ms=1), "ended, nobody saw how; it said nothing", "unknown how"),
        (
            ProgramEnd(at_ms=1, exit_status=0, lived_ms=200, lines=("done",)),
            "exited with status 0, 0.2 s after its start; last words: done; what is to run to its end is written with"
            " scale: once, all else must stay in the foreground",
            "status 0",
        ),
        (
            ProgramEnd(at_ms=1, exit_status=0, lived_ms=60_000),
            "exited with status 0, 60 s after its start; it said nothing",
            "status 0",
        ),
        (
            ProgramEnd(at_ms=1, exit_status=0, lived_ms=200, left="nginx (71)", lines=("ready",)),
            "exited with status 0, 0.2 s after its start; last words: ready; it went to the background, and nginx (71)"
            " ended with it: run it in the foreground",
            "status 0",
        ),
        (
            ProgramEnd(at_ms=1, signal="SIGKILL", left="python (8), python (9)"),
            "was ended by SIGKILL (somebody killed it, or memory ran out); it said nothing; python (8), python (9),"
            " which it left, ended with it",
            "SIGKILL",
        ),
        (ProgramEnd(at_ms=1, signal="SIGUSR1"), "was ended by SIGUSR1; it said nothing", "SIGUSR1"),
    ],
)
def test_words_of_an_end(end: ProgramEnd, words: str, short: str) -> None:
    assert (told(end), how_in_short(end)) == (words, short)
    assert told(end).startswith(how(end))


@pytest.mark.parametrize(
    ("ms", "words"),
    [(1, "0.1 s"), (1_234, "1.2 s"), (12_000, "12 s"), (300_000, "5 min"), (7_200_000, "2 h"), (400_000_000, "5 days")],
)
def test_a_life_in_words(ms: int, words: str) -> None:
    assert lasted(ms) == words


def test_the_last_lines_are_bounded_and_cannot_rewrite_a_terminal() -> None:
    lines = shown("".join(f"l{n}\n" for n in range(9)) + "\x1b[31mred\x1b[0m \x07\r\n\n  \n10%\r100%\n" + "w" * 999, ())
    assert lines == ("l7", "l8", "red \\x07", "100%", "w" * (MAX_LINE - 1) + "…")
    assert len(lines) == MAX_LINES
    assert shown("\n \n", ()) == ()


def test_secrets_and_logins_are_taken_out_the_longest_first() -> None:
    text = "a tokentoken b token c redis://me:pw@h:1/0 abc"
    assert redacted(text, ["token", "tokentoken", "abc"]) == f"a {HIDDEN} b {HIDDEN} c redis://{HIDDEN}@h:1/0 abc"


def test_words_are_of_this_life_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("former\n")
    place = LogPosition(pid=7, inode=log.stat().st_ino, size=log.stat().st_size)
    assert last_words(log, 7, place, ()) == ()
    with log.open("a") as file:
        file.write("ours\n")
    assert last_words(log, 7, place, ()) == ("ours",)
    # The next one has begun already.
    assert last_words(log, 6, place, ()) == ("former",)
    # Rotated: all that is there is ours.
    log.unlink()
    log.write_text("new\n")
    other = LogPosition(pid=7, inode=place.inode + 1, size=place.size)
    assert last_words(log, 7, other, ()) == ("new",)
    assert last_words(log, 7, None, ()) == ("new",)
    # What emp wrote at the head of a log that it made again is no word of the program.
    log.write_text(f"2026-11-30 04:35:38,641 WARNING {REMOVED_LINE}")
    assert last_words(log, 7, None, ()) == ()


def test_words_of_a_life_that_others_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement is quicker than whoever looks for the last words."""
    run, log = tmp_path / "run", tmp_path / "a.log"
    (tmp_path / "ends").mkdir()
    for pid, words in ((5, "fifth\n"), (6, ""), (7, "seventh\n"), (8, "eighth\n"), (9, "")):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        log.touch()
        leave_log_mark(str(run), "a", str(log), os.getpid())
        with log.open("a") as file:
            file.write(words)
    words_of = {pid: last_words(log, pid, began(run, "a", pid), ()) for pid in (5, 6, 7, 8, 9)}
    # Of the oldest nothing is known any more but that it ended before the others.
    assert words_of == {5: ("fifth",), 6: (), 7: ("seventh",), 8: ("eighth",), 9: ()}
    assert began(run, "b", 7) is None
    (tmp_path / "ends" / "b.began").write_text("7 x\n")
    assert began(run, "b", 7) is None


def test_a_log_that_is_something_else_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    link = tmp_path / "a.log"
    link.symlink_to(secret)
    os.mkfifo(tmp_path / "b.log")
    assert last_words(link, 7, None, ()) == ()
    assert last_words(tmp_path / "b.log", 7, None, ()) == ()


def test_ends_are_left_whole_and_read_again(tmp_path: Path) -> None:
    end = ProgramEnd(at_ms=5, pid=7, exit_status=3, lines=("x",))
    exit_files.make(tmp_path)
    exit_files.leave(tmp_path, "a", end)
    assert exit_files.read(tmp_path, "a") == end and exit_files.known(tmp_path) == {"a": end}
    exit_files.path_of(tmp_path, "b").write_text("{")
    assert exit_files.read(tmp_path, "b") is None and set(exit_files.known(tmp_path)) == {"a"}
    exit_files.forget(tmp_path, "a")
    assert exit_files.read(tmp_path, "a") is None
    assert exit_files.read(tmp_path / "nowhere", "a") is None


@pytest.mark.parametrize(
    ("spawnerr", "said"),
    [
        ("Exited too quickly (process log may have details)", ""),
        ("Bad exit code 3", ""),
        ("couldn't fork: EAGAIN", "couldn't fork: EAGAIN"),
    ],
)
def test_what_supervisord_says_of_every_end_is_no_reason(spawnerr: str, said: str) -> None:
    info = ProcessInfo(
        name="a", group="a", statename="FATAL", start=1, stop=2, exitstatus=0, pid=0, spawnerr=spawnerr, now=3
    )
    assert info.said == said
