"""How programs end, with a real supervisord: status or signal and the last words reach the machine's report."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from emp_orch.fleet.drift.exits import MAX_LINE, MAX_LINES, told
from emp_orch.fleet.model.fleet import Scale, SecretRef, Service, ServiceName
from emp_orch.fleet.model.observed import ProgramEnd, ProgramReport
from emp_orch.procident import send
from emp_orch.runtimes.process import exit_files
from emp_orch.store.fleet.commands import CommandVerb
from emp_orch.store.redis.client import Client
from support.fleet.fleets import service
from support.machine.machine import Box, desired, running, sleeper
from support.redis.server import Server

TRACEBACK = "def load(): raise RuntimeError('no checkpoint named x')\nload()"
# Writes more than is kept, in colours, with a progress bar and what no terminal should be sent.
LOUD = (
    "import sys; [print(f'line {n}') for n in range(40)]; print('\\x1b[31mred\\x1b[0m');"
    "print('10%\\r50%\\r100%'); print('bell \\x07', 'w' * 5000); sys.exit(4)"
)
# In the manner of daemons: a session of its own, and the parent ends well.
BACKGROUND = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nprint('serving', flush=True)\ntime.sleep(1000)"


@pytest.fixture
async def box(tmp_path: Path, r: Client, server: Server) -> AsyncIterator[Box]:
    made = Box(tmp_path, r, server.url)
    yield made
    await made.stop()


def python(name: str, code: str, **changes: object) -> Service:
    return service(name, command=(sys.executable, "-c", code), **changes)


def _ended(p: ProgramReport) -> bool:
    return p.last_end is not None


async def test_each_kind_of_end_says_how_and_with_which_words(box: Box, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    plain = tmp_path / "plain"
    plain.write_text("text")
    services = [
        python("three", "import sys; print('cannot bind', file=sys.stderr); sys.exit(3)"),
        python("zero", "print('done')"),
        python("background", BACKGROUND),
        python("killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        python("crashed", "import os, signal; print('native', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"),
        python("raised", TRACEBACK),
        python("loud", LOUD),
        python("nowhere", "pass", cwd="/nope"),
        service("absent", command=("/nonexistent/x", "--listen")),
        service("unfound", command=("no-such-command",)),
        service("plain", command=(str(plain),)),
        service("script", command=(str(script),)),
    ]
    await box.start(desired(*services))
    await box.until_program("three", _ended)
    for s in services[1:]:  # the start-up sequence would try them one after the other
        assert (await box.command(CommandVerb.START_PROGRAM, s.name)).ok
    ends: dict[str, ProgramEnd] = {}
    for s in services:
        report = await box.until_program(s.name, _ended)
        assert report.last_end is not None
        ends[s.name] = report.last_end
        assert "Exited too quickly" not in report.detail
        assert 0 < report.last_end.lived_ms < 10_000 and report.last_end.pid > 0
        assert exit_files.read(box.root, s.name) is not None
        assert stat.S_IMODE(exit_files.path_of(box.root, s.name).stat().st_mode) == 0o600

    def is_(name: str, status: int | None, sig: str, last: str) -> None:
        end = ends[name]
        found = (end.exit_status, end.signal, end.lines[-1] if end.lines else "")
        assert found == (status, sig, last), told(end)

    is_("three", 3, "", "cannot bind")
    is_("zero", 0, "", "done")
    assert "scale: once" in told(ends["zero"])
    assert "it went to the background, and python" in told(ends["background"])
    is_("killed", None, "SIGKILL", "")
    is_("crashed", None, "SIGSEGV", "native")
    is_("raised", 1, "", "RuntimeError: no checkpoint named x")
    assert ends["raised"].lines[0] == "Traceback (most recent call last):"
    is_("nowhere", 127, "", "emp: cannot start nowhere: its working directory /nope: No such file or directory")
    is_("absent", 127, "", "emp: cannot start absent: /nonexistent/x: not found")
    assert ends["unfound"].lines[-1].startswith("emp: cannot start unfound: no-such-command: not found in PATH (")
    is_("plain", 126, "", f"emp: cannot start plain: {plain}: not executable, or this user may not run it")
    is_("script", 127, "", f"emp: cannot start script: {script}: the interpreter in its first line is not there")
    loud = ends["loud"].lines
    assert len(loud) == MAX_LINES and loud[:4] == ("line 38", "line 39", "red", "100%")
    assert loud[4].startswith("bell \\x07 www") and len(loud[4]) == MAX_LINE


async def test_an_end_after_a_while_and_one_that_a_former_life_said_nothing_to(box: Box, tmp_path: Path) -> None:
    """The first life speaks, the second does not: its end has no words of the first. Then it is well again."""
    spoken = tmp_path / "spoken"
    code = (
        f"import os, time\nif not os.path.exists({str(spoken)!r}):\n  print('hello', flush=True)\n"
        f"open({str(spoken)!r}, 'w')\ntime.sleep(1000)"
    )
    await box.start(desired(python("a", code, start_s=1.0), sleeper("b")))
    first = await box.until_program("a", lambda p: running(p) and spoken.exists())
    assert first.last_end is None
    who = box.program("a")
    assert who is not None and send(who, signal.SIGKILL)
    one = await box.until_program("a", lambda p: _ended(p) and running(p))
    assert one.last_end is not None and (one.last_end.signal, one.last_end.lines) == ("SIGKILL", ("hello",))
    assert one.last_end.pid == who.pid and one.last_end.lived_ms >= 1_000

    who = box.program("a")
    assert who is not None and send(who, signal.SIGTERM)
    two = await box.until_program("a", lambda p: p.last_end is not None and p.last_end.pid == who.pid)
    assert two.last_end is not None and (two.last_end.signal, two.last_end.lines) == ("SIGTERM", ())

    # Asked for: no end, and what was known stays.
    assert (await box.command(CommandVerb.STOP_PROGRAM, "b")).ok
    stopped = await box.until_program("b", lambda p: p.state == "STOPPED")
    assert stopped.last_end is None and exit_files.read(box.root, "b") is None


async def test_no_secret_is_in_the_last_words(box: Box) -> None:
    values = {"env:TOKEN": "s3cr3t-value", "env:LINES": "first half\nsecond half"}
    box.root.joinpath("secrets.json").write_bytes(
        b'{"env:TOKEN":"s3cr3t-value","env:LINES":"first half\\nsecond half"}'
    )
    code = (
        "import os, sys; print('key', os.environ['TOKEN']); print(os.environ['LINES']);"
        "print(os.environ['HUB_REDIS_URL'].replace('://', '://me:pass@')); sys.exit(5)"
    )
    refs = {"TOKEN": SecretRef(source="env", name="TOKEN"), "LINES": SecretRef(source="env", name="LINES")}
    made = python("a", code)
    await box.start(desired(structs.replace(made, env=refs)))
    report = await box.until_program("a", _ended)
    assert report.last_end is not None
    text = "\n".join(report.last_end.lines)
    assert report.last_end.lines[0] == "key ***" and "://***@" in text
    assert not [v for value in values.values() for v in value.split("\n") if v in text]
    assert "s3cr3t" not in exit_files.path_of(box.root, ServiceName("a")).read_text()


async def test_an_end_while_no_agent_was_there_is_looked_up(box: Box) -> None:
    await box.start(desired(python("a", "import sys; print('gone', flush=True); sys.exit(9)", scale=Scale.ONCE)))
    failed = await box.until_program("a", _ended)
    assert failed.state == "EXITED"
    # A new agent that finds no file, as after an upgrade.
    agent = box.program("agent")
    assert agent is not None
    exit_files.forget(box.root, "a")
    os.kill(agent.pid, signal.SIGSTOP)
    assert send(agent, signal.SIGKILL)
    again = await box.until_program("a", lambda p: _ended(p) and exit_files.read(box.root, "a") is not None)
    assert again.last_end is not None and again.last_end.exit_status == 9 and again.last_end.lines == ("gone",)
