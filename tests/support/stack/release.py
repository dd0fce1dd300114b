"""An installation of emp that a fleet is applied from and runs, and that changes."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import urllib.request
import venv
from pathlib import Path
from typing import Any

from emp_orch.procident import ProcessIdentity
from support.stack.stack import MACHINE, Stack
from support.tree import ROOT

DAEMONS = ("api", "monitor", "reconcile", "eventlog")

WORKERS = ("redis-worker-gpu0", "redis-worker-gpu1")


class Release:
    """An installation of emp that a fleet is applied from and runs, and that changes."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.root = folder
        self.stack = stack
        for name in ("emp_orch", "templates", "schema"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "emp.yaml", folder)
        # Its packages are those of the tests; emp is the copy.
        venv.create(folder / "venv", symlinks=True)
        (packages,) = (folder / "venv").glob("lib/python3*/site-packages")
        (packages / "emp.pth").write_text(f"{folder}\n{site.getsitepackages()[0]}\n")
        self._module = folder / "emp_orch" / "worker" / "daemon.py"
        self._text = self._module.read_text()
        self._extension = folder / "emp_orch" / "machine" / "supervision" / "due.py"

    def becomes(self, line: str) -> None:
        """The next release: one whose worker begins with `line`."""
        self._module.write_text(self._text.replace("import asyncio\n", f"import asyncio\n{line}\n", 1))

    def changes_supervisord(self) -> None:
        """The next release: one with another extension."""
        self._extension.write_text(self._extension.read_text() + "# a later extension\n")

    def emp(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.root / "venv/bin/python"), *self.stack.argv(*args)[1:]]
        return subprocess.run(
            argv, cwd=self.stack.root, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )

    def apply(self, *more: str) -> subprocess.CompletedProcess[str]:
        """`emp apply -y` of this release."""
        return self.emp("apply", "-y", *more)

    def in_force(self) -> str:
        """Apply it; what that said."""
        done = self.apply()
        assert done.returncode == 0, done.stdout + done.stderr + self.stack.log_ends()
        return done.stdout + done.stderr

    def job(self, job_id: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.stack.api}/api/jobs/{job_id}", timeout=10) as answer:
            job: dict[str, Any] = json.load(answer)["data"]
            return job

    @property
    def packages(self) -> set[str]:
        """What the machine has on its disk."""
        return {p.name for p in (self.stack.layout.machine(MACHINE) / "packages").iterdir() if len(p.name) == 64}

    @property
    def running(self) -> set[str]:
        """The packages that its workers run from."""
        paths = [Path(f"/proc/{self.stack.program(name).pid}/environ").read_bytes() for name in WORKERS]
        return {v[12:].decode() for text in paths for v in text.split(b"\0") if v.startswith(b"EMP_PACKAGE=")}

    def pids(self, names: tuple[str, ...]) -> dict[str, ProcessIdentity]:
        return {name: self.stack.program(name) for name in names}

    def daemons(self) -> dict[str, ProcessIdentity]:
        return {name: self.stack.control(name) for name in ("supervisord", "redis", *DAEMONS)}

    def agent_log(self) -> str:
        return (self.stack.layout.logs / f"machine-{MACHINE}" / "agent.log").read_text()
