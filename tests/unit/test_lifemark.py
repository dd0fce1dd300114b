"""The mark a process leaves of its life, and what leaving it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from emp_orch import lifemark
from emp_orch.procident import end_recorded, identify, recorded

# Each costs as much as the launcher itself; a replaced program would wait for it.
DEAR = {"dataclasses", "inspect", "pathlib", "subprocess", "typing", "urllib.parse", "asyncio", "msgspec"}


def test_what_a_process_leaves_is_read_back_as_its_identity(tmp_path: Path) -> None:
    mark = tmp_path / "a program"
    lifemark.leave_own(str(mark))
    assert recorded(mark) == identify(os.getpid())
    assert [p.name for p in tmp_path.iterdir()] == ["a program"]


def test_a_mark_that_was_copied_is_nobodys_and_one_that_was_moved_is(tmp_path: Path) -> None:
    run = tmp_path / "prod" / "run"
    run.mkdir(parents=True)
    lifemark.leave_own(str(run / "p"))
    shutil.copytree(tmp_path / "prod", tmp_path / "staging", copy_function=os.link)
    assert recorded(tmp_path / "staging" / "run" / "p") is None
    end_recorded([tmp_path / "staging" / "run" / "p"], grace_s=0.0)  # or we would end here
    moved = run.parent.rename(tmp_path / "moved")
    assert recorded(moved / "run" / "p") == identify(os.getpid())


def test_a_mark_of_an_earlier_emp_counts_where_its_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    mark = tmp_path / "run" / "p"
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "EMP_RUN_DIR": str(mark.parent)},
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        who = identify(child.pid)
        assert who is not None
        mark.write_text(f"{who.pid} {who.start_ticks} {os.getsid(who.pid)} {lifemark.place()}\n")
        assert recorded(mark) == who
        copied = tmp_path / "copied" / "p"
        copied.parent.mkdir()
        copied.write_bytes(mark.read_bytes())
        assert recorded(copied) is None
        child.kill()


def test_a_process_that_is_gone_has_no_fields() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert lifemark.stat_fields(ended.pid) is None


def test_the_launcher_imports_next_to_nothing() -> None:
    look = "import sys; before = set(sys.modules); import emp_orch.machine.launch; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "emp_orch.lifemark" in loaded
    assert not loaded & DEAR
