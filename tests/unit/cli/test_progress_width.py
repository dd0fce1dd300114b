"""The live line is as wide as the terminal that it is on."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

COLUMNS = 132
SHOW = "from emp_orch.cli.output.progress import Progress; Progress().stage('x' * 500)"


@pytest.mark.parametrize(("columns", "shown_as"), [(COLUMNS, COLUMNS), (0, 80)], ids=["told", "never told"])
def test_its_width_is_that_of_stderr_also_where_stdout_is_a_pipe(columns: int, shown_as: int) -> None:
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
        subprocess.run([sys.executable, "-c", SHOW], stdout=subprocess.PIPE, stderr=theirs, env=env, check=True)
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert len(shown.rpartition("\x1b[K")[2]) == shown_as - 1
