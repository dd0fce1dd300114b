"""A bare supervisord with emp's extension and programs of the test's own: no agent, no Redis."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_orch import marks
from emp_orch.errors import EmpError
from emp_orch.procident import ProcessIdentity, alive, identify, recorded
from emp_orch.render.quoting import word
from emp_orch.runtimes.process.supervisor import ProcessInfo, Supervisor
from support.stack.stack import until

_CONF = """\
[supervisord]
nodaemon=true
silent=true
logfile=supervisord.log
pidfile=supervisord.pid
[unix_http_server]
file=/proc/self/cwd/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[rpcinterface:emp]
supervisor.rpcinterface_factory = {factory}
"""
_PROGRAM = """
[program:{name}]
command="{python}" -m emp_orch.machine.launch {name} -- {argv}
autostart={autostart}
startsecs={start_s}
stopwaitsecs={stop_s}
startretries=1
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(here)s/logs/{name}.log
{options}
"""
MACHINE = "bare"
FACTORY = "emp_orch.machine.supervision.extension:make"

# A listener whose children serve, as a pre-forking server's do; they hold the port when their parent is killed.
PRE_FORK = """
import os, socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
for _ in range(3):
    if not os.fork():
        break
while True:
    s.accept()[0].close()
"""
# A daemon in the old manner: a session of its own, no parent; `how` says what else it gives away.
DAEMON = """
import os, sys, time
wiped, silent, stubborn = "wiped" in sys.argv, "silent" in sys.argv, "stubborn" in sys.argv
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    if silent:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    code = "import signal,time\\nopen('{}','a').write('{{}} '.format(__import__('os').getpid()))\\n"
    code += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n" if stubborn else ""
    code = code.format(sys.argv[1]) + "while True: time.sleep(100)"
    os.execve(sys.executable, [sys.executable, "-c", code], {} if wiped else os.environ)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
if "stays" in sys.argv:
    time.sleep(10000)
"""


class Bare:
    """One supervisord in `folder`. Ends, with all that carries its mark, when the context does."""

    def __init__(self, folder: Path, *, factory: str = FACTORY, supervisor_at: Path | None = None) -> None:
        self.root = folder
        for name in ("run", "ends", "logs"):
            (folder / name).mkdir(parents=True)
        self._text = _CONF.format(factory=factory)
        self.mark = marks.of_folder(folder).of(MACHINE, marks.SUPERVISORD)
        self._path = [str(supervisor_at)] if supervisor_at else []
        self._child: subprocess.Popen[bytes] | None = None
        self.supervisor = Supervisor(folder)

    def program(
        self, name: str, *argv: str, autostart: bool = True, start_s: int = 0, stop_s: int = 5, options: str = ""
    ) -> None:
        """`options`: more lines of its section."""
        words = " ".join(word(w) for w in argv)
        self._text += _PROGRAM.format(
            name=name,
            python=sys.executable,
            argv=words,
            autostart=str(autostart).lower(),
            start_s=start_s,
            stop_s=stop_s,
            options=options,
        )

    def start(self, **env: str) -> None:
        self.spawn(**env)
        until("supervisord answers", self._answers, shown=self.log)

    def spawn(self, **env: str) -> None:
        """Start it, and wait for nothing."""
        (self.root / "supervisord.conf").write_text(self._text)
        path = os.pathsep.join(filter(None, (*self._path, os.environ.get("PYTHONPATH"))))
        environment = {
            **os.environ,
            **marks.environment(self.mark, self.root),
            "EMP_RUN_DIR": str(self.root / "run"),
            "EMP_LOG_DIR": str(self.root / "logs"),
            "PYTHONPATH": path,
            **env,
        }
        argv = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
        with (self.root / "out.log").open("ab") as out:
            self._child = subprocess.Popen(
                argv, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _answers(self) -> bool:
        try:
            self.supervisor._call("getState")
        except EmpError:
            return False
        return True

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        for one in self.marked():
            os.kill(one.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def end(self) -> int:
        """End it in order; its exit code."""
        assert self._child is not None
        self._child.terminate()
        return self._child.wait(60)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._child is not None
        return self._child.poll()

    # -- what runs

    def log(self) -> str:
        paths = (self.root / "out.log", self.root / "supervisord.log", *sorted((self.root / "logs").glob("*.log")))
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def marked(self, program: str | None = None) -> list[ProcessIdentity]:
        """Every living process with this one's mark, or that of its `program`."""
        found = [m for m in marks.marked() if m.mark.place == self.mark.place and m.mark.machine == MACHINE]
        return [m.who for m in found if program is None or m.mark.program == program]

    def main(self, name: str, *, but: ProcessIdentity | None = None) -> ProcessIdentity:
        """The living main process of a program, another than `but`."""

        def look() -> ProcessIdentity | None:
            who = recorded(self.root / "run" / name)
            return who if who is not None and who != but and alive(who) else None

        return until(f"a process of {name}", look, shown=self.log)

    def state(self, name: str) -> ProcessInfo:
        found: Mapping[str, Any] = self.supervisor._call("getProcessInfo", name)
        return ProcessInfo(**{f: found[f] for f in ProcessInfo.__struct_fields__})

    def until_state(self, name: str, *states: str) -> ProcessInfo:
        def look() -> ProcessInfo | None:
            info = self.state(name)
            return info if info.statename in states else None

        return until(f"{name} is {' or '.join(states)}", look, shown=self.log)


def serves(port: int) -> bool:
    """Whether somebody accepts on it."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def daemons(note: Path) -> list[ProcessIdentity]:
    """Those that wrote their pid into `note` and live."""
    pids = note.read_text().split() if note.exists() else []
    return [who for pid in pids if (who := identify(int(pid))) is not None]
