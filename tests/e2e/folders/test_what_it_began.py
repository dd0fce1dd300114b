"""What emp began, it ends, all of it: children, daemons and sessions of their own, from apply to the next apply."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from emp_orch.errors import Exit
from emp_orch.procident import ProcessIdentity, identify
from support.stack.stack import Stack, until

# Three children take what comes on the port; their parent only waits for them.
SERVER = """\
import os, socket, sys
note = os.path.join(os.environ["NOTES"], "server")
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
for _ in range(3):
    if not os.fork():
        open(note, "a").write(f"{os.getpid()} ")
        while True:
            s.accept()[0].close()
s.close()
while True:
    os.wait()
"""
# Its listener is a grandchild in a session of its own, which has nothing of emp's about it any more.
SESSION = """\
import os, sys, time
listens = 'import socket, sys\\ns = socket.create_server(("127.0.0.1", int(sys.argv[1])))'
listens += '\\nwhile True: s.accept()[0].close()'
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    open(os.path.join(os.environ["NOTES"], "session"), "a").write(f"{os.getpid()} ")
    os.chdir("/")
    os.execve(sys.executable, [sys.executable, "-c", listens, sys.argv[1]], {})
os.wait()
time.sleep(10000)
"""
# A daemon in the old manner: two forks, a session of its own, and whoever started it ends well.
DAEMON = """\
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        open(os.path.join(os.environ["NOTES"], "daemon"), "a").write(f"{os.getpid()} ")
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        time.sleep(10000)
    os._exit(0)
os.wait()
"""
SERVICES = {"server": SERVER, "session": SESSION, "daemon": DAEMON}
FLEET = """\
version: 1
name: began
redis: {{port: {redis}, url: embedded}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  server:
    scale: per_machine
    port: {simulation}
    command: [{python}, server.py, "{simulation}"]
    health: {{tcp: "${{port}}", interval: 200ms}}
    env: {{NOTES: {notes}}}
    cwd: {notes}
  session:
    scale: per_machine
    port: {comfyui}
    command: [{python}, session.py, "{comfyui}"]
    health: {{tcp: "${{port}}", interval: 200ms}}
    env: {{NOTES: {notes}}}
    cwd: {notes}
  daemon:
    scale: per_machine
    command: [{python}, daemon.py]
    env: {{NOTES: {notes}}}
    cwd: {notes}
machines:
  a: {{runtime: process, num_gpus: 0, services: [server, session]}}
  b: {{runtime: process, num_gpus: 0, services: [daemon]}}
"""


class Began:
    """A fleet whose services write down whom they began: what is left is told by that, not by what emp goes by."""

    def __init__(self, stack: Stack, notes: Path) -> None:
        self.stack = stack
        self.notes = notes
        for name, text in SERVICES.items():
            (notes / f"{name}.py").write_text(text)
        stack.file.write_text(FLEET.format(python=sys.executable, notes=notes, **stack.ports))

    def apply(self) -> None:
        """It is not refused; `daemon` never comes up, so that it cannot end well."""
        done = self.stack.run("apply", "-y", "--timeout", "1s")
        assert done.returncode == Exit.TIMEOUT, done.stdout + done.stderr

    def down(self) -> str:
        """After it nothing of the fleet's is left, whoever looks."""
        said = self.stack.ok("down")
        assert self.stack.leftovers() == []
        assert {name: self.by(name) for name in SERVICES} == {name: [] for name in SERVICES}
        return said

    def ever(self, service: str) -> list[int]:
        """The pids of all that `service` ever began."""
        note = self.notes / service
        return [int(pid) for pid in note.read_text().split()] if note.exists() else []

    def by(self, service: str) -> list[ProcessIdentity]:
        """Who lives of them."""
        return [who for pid in self.ever(service) if (who := identify(pid)) is not None]

    def serves(self, service: str, *, but: Iterable[ProcessIdentity] = ()) -> list[ProcessIdentity]:
        """Who began to serve, none of `but`; none of those is left then."""
        count = {"server": 3, "session": 1}[service]

        def look() -> list[ProcessIdentity]:
            found = self.by(service)
            return found if len(found) == count and not {*found} & {*but} else []

        return until(f"{count} of {service}", look, shown=lambda: f"{self.by(service)}{self.stack.log_ends()}")


@pytest.fixture
def began(folder_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Began:
    return Began(folder_stack, tmp_path_factory.mktemp("notes"))


def test_all_that_the_services_began_ends_with_them(began: Began) -> None:
    stack = began.stack
    began.apply()
    server, session = began.serves("server"), began.serves("session")

    # The main process of a pre-forking server is killed: its replacement has the port at once.
    os.kill(stack.program("server", "a").pid, signal.SIGKILL)
    server = began.serves("server", but=server)

    # A daemon leaves nobody behind, however often it is started, and is told what it did wherever one looks.
    until("three starts", lambda: len(began.ever("daemon")) >= 3, shown=stack.log_ends)
    assert len(began.by("daemon")) <= 1  # one may just be ending
    for words in (("status",), ("diff",), ("doctor",), ("logs", "b", "daemon")):
        done = stack.run(*words)
        for said in ("went to the background", "run it in the foreground"):
            assert said in done.stdout + done.stderr, f"emp {' '.join(words)}:\n{done.stdout}{done.stderr}"
        # The listeners are the services' own, wherever they went.
        assert "is taken by" not in done.stdout, done.stdout
        assert " server: " not in done.stdout and " session: " not in done.stdout, done.stdout

    # Both say what they ended beyond the programs; the server's children were told to end with it.
    said = stack.ok("restart", "a", "session")
    assert said.splitlines()[1:] == [f"  ended with it: python (pid {session[0].pid}), which session had left behind"]
    session = began.serves("session", but=session)
    ended = json.loads(stack.ok("restart", "a", "--json"))["ended"]
    one = {"name": "python", "pid": session[0].pid}
    assert ended == [{"machine": "a", "program": "session", "count": 1, "processes": [one]}]
    server, session = began.serves("server", but=server), began.serves("session", but=session)
    failed = stack.run("restart", "b", "daemon")
    assert failed.returncode == Exit.FAILED
    assert "b daemon was restarted, and does not stay up: " in failed.stderr
    assert "went to the background" in failed.stderr

    # Whoever is killed with its supervisord leaves its children to nobody: the next apply is not kept from their ports.
    for name in ("supervisord", "server", "session"):
        os.kill(stack.program(name, "a").pid, signal.SIGKILL)
    began.apply()
    began.serves("server", but=server)
    session = began.serves("session", but=session)
    assert "program-port-taken" not in (stack.layout.logs / "reconcile.log").read_text()

    said = began.down()
    assert f"\n  ended with it: python (pid {session[0].pid}), which session on a had left behind" in said
    began.apply()
    began.serves("server"), began.serves("session")
    began.down()
