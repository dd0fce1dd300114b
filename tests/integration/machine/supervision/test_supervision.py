"""emp's extension of supervisord: whatever a program began ends with it, however that hid, and nothing waits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch.procident import alive, ancestors
from support.machine.supervision import DAEMON, MACHINE, PRE_FORK, Bare, daemons, serves
from support.stack.stack import free_ports, until


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    with Bare(tmp_path / "bare") as bare:
        yield bare


def test_a_killed_servers_children_end_before_its_replacement_starts(bare: Bare) -> None:
    port = free_ports(1)
    bare.program("server", sys.executable, "-c", PRE_FORK, str(port))
    bare.start()
    parent = bare.main("server")
    before = until("three children", lambda: found if len(found := bare.marked("server")) == 4 else None)
    os.kill(parent.pid, signal.SIGKILL)
    again = bare.main("server", but=parent)
    # Its replacement has the port, which nobody shares: SO_REUSEADDR lets no second listener in.
    until("it serves", lambda: serves(port), shown=bare.log)
    assert not [who for who in before if alive(who)]
    assert alive(again)
    assert "left: 'server' with pid" in bare.log()


@pytest.mark.parametrize("how", [(), ("wiped",), ("wiped", "silent"), ("stubborn",)])
def test_what_went_to_the_background_ends_with_its_program(bare: Bare, tmp_path: Path, how: tuple[str, ...]) -> None:
    note = tmp_path / "pids"
    bare.program("daemon", sys.executable, "-c", DAEMON, str(note), *how, start_s=30)
    bare.program("other", "sleep", "1000")
    bare.start()
    # It ends within its start seconds each time, however long its daemon takes to end: given up in the end.
    bare.until_state("daemon", "FATAL")
    assert bare.log().count("left: 'daemon' with pid") == 2  # once, and one retry
    assert daemons(note) == []
    assert alive(bare.main("other"))
    assert bare.end() == 0
    assert bare.marked() == []


@pytest.mark.parametrize("how", [("stays",), ("stays", "wiped"), ("stays", "wiped", "silent")])
def test_a_stop_ends_a_grandchild_in_a_session_of_its_own(bare: Bare, tmp_path: Path, how: tuple[str, ...]) -> None:
    note = tmp_path / "pids"
    bare.program("daemon", sys.executable, "-c", DAEMON, str(note), *how)
    bare.start()
    bare.main("daemon")
    (left,) = until("a daemon", lambda: daemons(note))
    assert until("it is an orphan of supervisord's", lambda: ancestors(left.pid)[:1] == [bare.pid])
    bare.supervisor._call("stopProcess", "daemon", True)
    # The answer to a stop is that all of it has ended.
    assert not alive(left)
    assert bare.marked("daemon") == []
    bare.supervisor._call("startProcess", "daemon", True)
    until("another daemon", lambda: daemons(note))
    assert bare.end() == 0
    assert daemons(note) == []


def test_an_orphan_of_a_living_program_runs_on(bare: Bare, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    bare.program("daemon", sys.executable, "-c", DAEMON, str(note), "stays")
    bare.program("other", "sleep", "1000")
    bare.start()
    (left,) = until("a daemon", lambda: daemons(note))
    other = bare.main("other")
    os.kill(other.pid, signal.SIGKILL)
    bare.main("other", but=other)
    assert alive(left)


def test_another_supervisords_processes_are_left_alone(bare: Bare, tmp_path: Path) -> None:
    """The reconciler starts machines, which come to the control plane's supervisord when it is killed."""
    note = tmp_path / "pids"
    other = "EMP_MARK=1:2:3:f:elsewhere:supervisord"
    bare.program("reconcile", "env", other, sys.executable, "-c", DAEMON, str(note), "stays")
    bare.start()
    (theirs,) = until("a daemon", lambda: daemons(note))
    try:
        main = bare.main("reconcile")
        os.kill(main.pid, signal.SIGKILL)
        bare.main("reconcile", but=main)
        assert alive(theirs)
        assert bare.end() == 0
        assert alive(theirs)
    finally:
        for who in daemons(note):
            os.kill(who.pid, signal.SIGKILL)


def test_a_stop_that_comes_while_it_starts_is_heard(bare: Bare) -> None:
    """Between fork and exec a copy of supervisord would hear the signal, and do nothing."""
    for n in range(20):
        bare.program(f"p{n}", "sleep", "1000", autostart=False, stop_s=600)
    bare.start()
    for n in range(20):
        bare.supervisor._call("startProcess", f"p{n}", False)
        bare.supervisor._call("stopProcess", f"p{n}", True)
    assert bare.marked("p0") == []


def test_all_that_is_to_start_starts_in_one_turn(bare: Bare) -> None:
    for n in range(30):
        bare.program(f"p{n}", "sleep", "1000", start_s=1)
    bare.start()
    for n in range(30):
        bare.until_state(f"p{n}", "RUNNING")
    log = bare.log()
    # None was called running, which takes a second, before all of them were started.
    assert log.rindex("spawned:") < log.index("success:")


def test_a_program_has_emps_open_files_and_no_descriptor_of_supervisords(bare: Bare, tmp_path: Path) -> None:
    code = (
        "import os,resource as r,sys;print(r.getrlimit(r.RLIMIT_NOFILE),sorted(map(int,os.listdir('/proc/self/fd'))))"
    )
    bare.program("p", sys.executable, "-c", f"{code};sys.stdout.flush();import time;time.sleep(1000)")
    bare.start(EMP_SECRETS="/nonexistent")
    bare.main("p")
    said = until("what it said", lambda: (bare.root / "logs" / "p.log").read_text())
    limits, _, fds = said.partition(") ")
    soft, hard = map(int, limits.strip("(").split(","))
    assert soft == min(hard, 1 << 20) if hard > 0 else 1 << 20
    assert fds.strip() == "[0, 1, 2, 3]"  # 3 is the listing itself


def test_a_program_that_cannot_start_says_why_where_its_output_goes(bare: Bare) -> None:
    bare.program("missing", "no-such-program", start_s=1)
    bare.program("folder", "/", start_s=1)
    bare.start()
    for name, why, status in (("missing", "not found in PATH", 127), ("folder", "not executable", 126)):
        bare.until_state(name, "FATAL")
        assert why in (bare.root / "logs" / f"{name}.log").read_text()
        assert f"exited: {name} (exit status {status}; not expected)" in bare.log()


SAYS = "import os,sys;sys.stdout.buffer.write(open('/proc/self/environ','rb').read()+b'\\1');sys.stdout.flush();input()"


@pytest.mark.parametrize("odd", ["EMP_ODD", "EMP.ODD"])
def test_a_program_is_given_its_environment_as_it_is_and_nothing_to_read(bare: Bare, odd: str) -> None:
    """Through a shell that waits for us, or through a fork where a name is none that a shell hands on."""
    given = {
        odd: "a\n'\"$HOME\\` ",
        "PWD": "/nonexistent",
        "OLDPWD": "/nonexistent",
        "SHLVL": "7",
        "_": "x",
        "PS1": "$",
    }
    bare.program("p", sys.executable, "-c", SAYS)
    bare.start(**given)
    main = bare.main("p")
    log = bare.root / "logs" / "p.log"
    said = until("all that it says", lambda: text if (text := log.read_text()).endswith("\1") else "", shown=bare.log)
    variables = [v for v in said.rstrip("\1").split("\0") if v]
    found = dict(v.split("=", 1) for v in variables)
    assert len(found) == len(variables)
    assert {name: found[name] for name in given} == given
    # What supervisord has, with the mark of the program, and what supervisord adds.
    theirs = Path(f"/proc/{bare.pid}/environ").read_text().split("\0")
    expected = dict(v.split("=", 1) for v in theirs if v)
    added = {name for name in found if name.startswith("SUPERVISOR_")}
    assert added == {f"SUPERVISOR_{n}" for n in ("ENABLED", "SERVER_URL", "PROCESS_NAME", "GROUP_NAME")}
    differ = {name for name in {*found, *expected} - added if found.get(name) != expected.get(name)}
    assert differ == {"EMP_MARK"}
    assert found["EMP_MARK"].endswith(f":{MACHINE}:p")
    assert alive(main)  # it waits for its first line


def test_a_text_without_a_first_line_is_run_by_nobody(bare: Bare, tmp_path: Path) -> None:
    """A shell would run it by itself."""
    for name, text in (("text", "echo ran"), ("stray", "#!/no/such/interpreter\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        bare.program(name, str(tmp_path / name), start_s=1)
    bare.start()
    for name, why in (("text", "Exec format error"), ("stray", "the interpreter in its first line is not there")):
        bare.until_state(name, "FATAL")
        assert why in (bare.root / "logs" / f"{name}.log").read_text()
