"""The mark a process leaves of its life, and what leaving it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emp_orch import lifemark
from emp_orch.procident import identify, recorded

# Each costs as much as the launcher itself; a replaced program would wait for it.
DEAR = {"dataclasses", "inspect", "pathlib", "subprocess", "typing", "urllib.parse", "asyncio", "msgspec"}


def test_what_a_process_leaves_is_read_back_as_its_identity(tmp_path: Path) -> None:
    mark = tmp_path / "a program"
    lifemark.leave_own(str(mark))
    assert recorded(mark) == identify(os.getpid())
    assert [p.name for p in tmp_path.iterdir()] == ["a program"]


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
