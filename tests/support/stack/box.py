"""Another host's folder, for a machine that joins a fleet by itself."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from emp_orch.procident import ProcessIdentity, alive, end_recorded, recorded

BOX = "box"


class Box:
    """Another host's folder, and the process that a stranger starts there."""

    def __init__(self, folder: Path, *, pool: str = "") -> None:
        folder.mkdir()
        self.folder = folder
        self.machine = folder / ".emp" / "pools" / pool if pool else folder / ".emp" / "machines" / BOX
        self.log = folder / "console.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, line: str = f"emp machine {BOX} --stay", **environ: str) -> None:
        """Run `line` as a shell would in which `environ` is set."""
        words = shlex.split(line)
        given = dict(w.split("=", 1) for w in words if w.startswith("EMP_"))
        argv = [sys.executable, "-m", "emp_orch", *words[words.index("emp") + 1 :]]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("EMP_", "REDIS", "HUB_"))}
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                argv,
                cwd=self.folder,
                env={**clean, **environ, **given},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ended(self) -> int:
        assert self._child is not None
        return self._child.wait(30)

    def outcome(self, *names: str) -> str:
        """`runs` once these programs do, `ended` when the process that was started has; empty before either."""
        assert self._child is not None
        if self._child.poll() is not None:
            return "ended"
        return "runs" if len(self.pids(*names)) == len(names) else ""

    def program(self, name: str) -> ProcessIdentity | None:
        who = recorded(self.machine / "run" / name)
        return who if who is not None and alive(who) else None

    def pids(self, *names: str) -> dict[str, int]:
        return {name: who.pid for name in names if (who := self.program(name)) is not None}

    def kill(self) -> None:
        """Kill its supervisord; its programs run on."""
        who = self.program("supervisord")
        assert who is not None
        os.kill(who.pid, signal.SIGKILL)
        self.ended()

    def stop(self) -> None:
        """Ask it to end in good order, and wait until it has."""
        assert self._child is not None
        self._child.terminate()
        self.ended()

    def clear(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        end_recorded(sorted((self.machine / "run").glob("*")), grace_s=5.0)

    def said(self) -> str:
        """All that it wrote into logs."""
        return "".join(p.read_text(errors="replace") for p in [self.log, *(self.folder / "logs").rglob("*.log")])
