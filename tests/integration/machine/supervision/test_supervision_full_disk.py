"""A full disk below supervisord's logs, its programs' and emp's own notes: all runs on, and the logs go on later."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervisor.loggers import LevelsByName, LogRecord

from emp_orch.machine.supervision.logs import LogFile
from emp_orch.procident import ProcessIdentity, alive, recorded
from support.host.small_disk import SmallDisk, small_disk
from support.machine.supervision import Bare
from support.stack.stack import until

# Says more than a pipe holds, again and again; `note` tells how far it came.
TALKER = """
import sys, time
said = 0
while True:
    print("x" * 999, flush=True)
    said += 1
    if said % 100 == 0:
        open(sys.argv[1], "w").write(str(said))
    time.sleep(0.001)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 20) as disk:
        yield disk


@pytest.fixture
def bare(disk: SmallDisk) -> Iterator[Bare]:
    with Bare(disk.folder / "bare") as bare:
        yield bare


def said(note: Path) -> int:
    return int(note.read_text() or 0) if note.exists() else 0


def living(bare: Bare, name: str, *, but: ProcessIdentity | None = None) -> ProcessIdentity:
    """By its mark: with a full disk it leaves no note of itself."""

    def look() -> ProcessIdentity | None:
        found = [who for who in bare.marked(name) if who != but]
        return found[0] if found else None

    return until(f"a process of {name}", look, shown=lambda: bare.log()[-3000:])


def killed(bare: Bare, name: str, who: ProcessIdentity) -> ProcessIdentity:
    """Its replacement, after `who` was killed."""
    os.kill(who.pid, signal.SIGKILL)
    return living(bare, name, but=who)


def hidden(bare: Bare) -> list[str]:
    """What was written half, and left."""
    return [str(p) for name in ("run", "ends", "logs") for p in (bare.root / name).iterdir() if p.name[0] == "."]


def test_all_runs_on_and_the_logs_go_on_afterwards(disk: SmallDisk, bare: Bare, tmp_path: Path) -> None:
    note, name, logs = tmp_path / "said", "other" * 30, bare.root / "logs"
    bare.program("talker", sys.executable, "-c", TALKER, str(note), options="stdout_logfile_maxbytes=200KB")
    bare.program(name, "sleep", "1000")
    bare.start()
    other, talker = bare.main(name), bare.main("talker")
    until("it talks", lambda: said(note) > 500)
    disk.fill()
    before = said(note)
    for _ in range(12):  # that makes more lines than the last block of supervisord's log takes
        other = killed(bare, name, other)
    until("nobody keeps it from talking", lambda: said(note) > before + 1000, shown=lambda: bare.log()[-3000:])
    assert alive(talker)
    assert bare.supervisor._call("getState")["statename"] == "RUNNING"
    assert hidden(bare) == []
    disk.empty()
    other = killed(bare, name, other)
    own = bare.root / "supervisord.log"
    lost = "bytes are lost here: No space left on device"
    until("its own log goes on", lambda: f"spawned: '{name}' with pid {other.pid}" in own.read_text(), shown=bare.log)
    assert lost in own.read_text()
    until("so does the program's", lambda: any(lost in p.read_text() for p in logs.glob("talker.log*")))
    assert until("it leaves its note again", lambda: recorded(bare.root / "run" / name)) == other
    assert bare.end() == 0
    assert bare.marked() == []


def test_where_no_file_can_be_made_a_log_grows_and_programs_start(disk: SmallDisk, bare: Bare, tmp_path: Path) -> None:
    note, log = tmp_path / "said", bare.root / "logs" / "talker.log"
    bare.program("talker", sys.executable, "-c", TALKER, str(note), options="stdout_logfile_maxbytes=200KB")
    bare.program("other", "sleep", "1000")
    bare.program("late", "sleep", "1000", autostart=False)
    bare.start()
    talker, other = bare.main("talker"), bare.main("other")
    disk.no_files()
    other = killed(bare, "other", other)
    bare.supervisor._call("startProcess", "late", True)  # which has no log yet
    until("its log is longer than it may be", lambda: log.stat().st_size > 400_000, shown=lambda: bare.log()[-3000:])
    assert alive(talker)
    disk.empty()
    until("it is rotated", lambda: log.with_name("talker.log.1").exists() and log.stat().st_size < 400_000)
    assert hidden(bare) == []
    assert bare.state("late").statename == "RUNNING"


def test_a_log_on_a_disk_that_cannot_be_written_goes_on_when_it_can(disk: SmallDisk) -> None:
    log = disk.folder / "some.log"
    disk.read_only()
    file = LogFile(str(log), most_bytes=0, backups=0)
    file.emit(LogRecord(LevelsByName.INFO, b"nobody reads this\n"))
    assert not log.exists()
    disk.empty()
    file.emit(LogRecord(LevelsByName.INFO, b"but this\n"))
    file.close()
    assert re.fullmatch(r"\n\S+ \S+ emp: 18 bytes are lost here: Read-only file system\nbut this\n", log.read_text())


@pytest.mark.parametrize(
    ("backups", "kept"), [(0, {"some.log": b""}), (2, {"some.log": b"", "some.log.1": b"4444", "some.log.2": b"3333"})]
)
def test_a_log_is_rotated_as_supervisord_does(tmp_path: Path, backups: int, kept: dict[str, bytes]) -> None:
    file = LogFile(str(tmp_path / "some.log"), most_bytes=4, backups=backups)
    for number in range(1, 5):
        file.emit(LogRecord(LevelsByName.INFO, f"{number}".encode() * 4))
    file.close()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == kept
