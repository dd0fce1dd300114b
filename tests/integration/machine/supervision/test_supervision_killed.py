"""A supervisord that is killed at any moment: all that it began is found by its marks, and ended.

The moments are spread over its start and over the replacement of a program; what is left is looked for by the folder
that every one of these processes stands in, which the product does not go by.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from emp_orch.adopted import adopted
from emp_orch.procident import ProcessIdentity, alive, identify
from emp_orch.runtimes.process.stop import end_left
from support.machine import killed_at
from support.machine.supervision import Bare
from support.stack.stack import until
from support.tree import TESTS

# A program whose child is an orphan in a session of its own from the first.
FORKS = """
import os, time
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execvp("sleep", ["sleep", "1000"])
os.wait()
os.execvp("sleep", ["sleep", "1000"])
"""
STEP_S = 0.025


def standing_in(folder: Path) -> list[ProcessIdentity]:
    """The living processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cwd").readlink() == folder:
                found.append(identify(int(entry.name)))
        except OSError:
            continue
    return [who for who in found if who is not None]


NOTES = "import os, time; open('ran', 'a').write(f'{os.getpid()} '); time.sleep(1000)"


def _bare(folder: Path) -> Bare:
    bare = Bare(folder)
    for n in range(3):
        bare.program(f"p{n}", sys.executable, "-c", FORKS)
    return bare


def _nothing_is_left(bare: Bare) -> None:
    end_left(bare.root, bare.mark, grace_s=5.0)
    assert standing_in(bare.root) == []
    assert bare.marked() == []


@pytest.mark.parametrize("after", range(24))
def test_killed_while_it_starts(tmp_path: Path, after: int) -> None:
    """From before it has read its file to when all have forked."""
    with _bare(tmp_path / "bare") as bare:
        bare.spawn()
        time.sleep(after * STEP_S)  # the moment itself is what is varied: there is no state to await
        bare.kill()
        _nothing_is_left(bare)


@pytest.mark.parametrize("after", range(8))
def test_killed_while_it_replaces_a_program(tmp_path: Path, after: int) -> None:
    with _bare(tmp_path / "bare") as bare:
        bare.start()
        until("their orphans", lambda: len(standing_in(bare.root)) >= 7, shown=bare.log)
        main = bare.main("p1")
        os.kill(main.pid, signal.SIGKILL)
        time.sleep(after * 0.004)
        bare.kill()
        assert len(standing_in(bare.root)) >= 4  # the other two, each with its orphan
        _nothing_is_left(bare)


# Whose grandchild has nothing of emp's about it: no mark, no parent, session, group or output of ours.
WIPES = """
import os, sys, time
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.execve("/bin/sleep", ["sleep", "1000"], {})
os.wait()
time.sleep(1000)
"""


def test_killed_with_all_that_a_program_is_known_by(tmp_path: Path) -> None:
    """Nothing but what supervisord wrote down tells whose its orphan was."""
    with Bare(tmp_path / "bare") as bare:
        bare.program("p", sys.executable, "-c", WIPES)
        bare.start()
        (orphan,) = until("it is known", lambda: adopted(bare.root), shown=bare.log)
        assert orphan not in bare.marked()
        main = bare.main("p")
        bare.kill()
        os.kill(main.pid, signal.SIGKILL)
        assert adopted(bare.root) == [orphan]
        _nothing_is_left(bare)
        assert not alive(orphan)
        assert list((bare.root / "adopted").iterdir()) == []


@pytest.mark.parametrize("start", [1, 2], ids=["first start", "replacement"])
@pytest.mark.parametrize("step", killed_at.STEPS)
def test_killed_between_two_steps_of_a_start(tmp_path: Path, step: str, start: int) -> None:
    """What became a program is written down; what did not ends by itself."""
    with Bare(tmp_path / "bare", factory="support.machine.killed_at:make") as bare:
        bare.program("p", sys.executable, "-c", NOTES)
        bare.spawn(KILLED_AT=step, KILLED_IN=str(start), PYTHONPATH=str(TESTS))
        ran = bare.root / "ran"
        if start == 2:
            pid = until("it runs", lambda: ran.read_text() if ran.exists() else "", shown=bare.log)
            os.kill(int(pid), signal.SIGKILL)
        assert until("supervisord is killed", lambda: bare.ended() == -signal.SIGKILL, shown=bare.log)
        if step == "parent":
            who = until("it runs", lambda: bare.marked("p"), shown=bare.log)
            assert who == [bare.main("p")]
        else:
            until("what was to become it ends", lambda: standing_in(bare.root) == [], shown=bare.log)
        became = start if step == "parent" else start - 1
        assert until("as often as it became one", lambda: _ran(ran) == became)
        _nothing_is_left(bare)


def _ran(note: Path) -> int:
    return len(note.read_text().split()) if note.exists() else 0
