"""emp's extension in the oldest supervisord that is promised, and in one between: it replaces parts of their insides.

The newest is the one that is locked, and all other tests run with it. Without pip or a package index this is skipped;
in CI that is a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emp_orch.procident import alive
from support.machine.supervision import DAEMON, PRE_FORK, Bare, daemons, serves
from support.stack.stack import free_ports, until

# Both ask pkg_resources for their own version, which later setuptools do not have.
SETUPTOOLS = "setuptools<81"
# What it finds at its first step where its identity is to be.
IDENTITY = "import os, sys; print(os.getpid(), open('run/known').read().split()[0], flush=True); sys.stdin.read()"
PIP_S = 120


def _installed(version: str, folder: Path) -> Path:
    """supervisor of that version, in a folder of its own."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary", ":all:", "--target", str(folder), f"supervisor=={version}", SETUPTOOLS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PIP_S)
    if done.returncode:
        pytest.skip(f"supervisor {version} cannot be installed: {done.stderr.strip()[-300:]}")
    return folder


@pytest.mark.parametrize("version", ["4.2.0", "4.2.5"])
def test_what_a_program_began_ends_with_it_in_supervisor(version: str, tmp_path: Path) -> None:
    at = _installed(version, tmp_path / "supervisor")
    note, port = tmp_path / "pids", free_ports(1)
    with Bare(tmp_path / "bare", supervisor_at=at) as bare:
        bare.program("server", sys.executable, "-c", PRE_FORK, str(port))
        bare.program("daemon", sys.executable, "-c", DAEMON, str(note), "stays", "wiped")
        bare.program("known", sys.executable, "-c", IDENTITY)
        bare.start()
        assert bare.supervisor._call("getSupervisorVersion") == version

        # Its identity is there before it is.
        log = bare.root / "logs" / "known.log"
        said = until("its words", lambda: w if len(w := log.read_text().split()) > 1 else None, shown=bare.log)
        assert said and said[0] == said[1], said

        # Killed: its children end, then its replacement starts.
        parent = bare.main("server")
        before = until("three children", lambda: found if len(found := bare.marked("server")) == 4 else None)
        os.kill(parent.pid, signal.SIGKILL)
        bare.main("server", but=parent)
        until("it serves", lambda: serves(port), shown=bare.log)
        assert not [who for who in before if alive(who)]

        # Stopped: what hid is ended before the stop is answered.
        (left,) = until("a daemon", lambda: daemons(note), shown=bare.log)
        bare.supervisor._call("stopProcess", "daemon", True)
        assert not alive(left)

        # Ended: nothing is left.
        bare.supervisor._call("startProcess", "daemon", True)
        until("another daemon", lambda: daemons(note), shown=bare.log)
        assert bare.end() == 0
        assert daemons(note) == [] and bare.marked() == []
