"""The pure parts of what an agent tells: ends, rivals, ports taken, addresses."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from emp_orch.fleet.desired.values import DesiredProgram
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineReport, ProgramReport, ProgramState, WorkerReport
from emp_orch.host.ports import Holder
from emp_orch.machine.health import ports
from emp_orch.machine.health.ports import Asked, in_trouble, to_look_at, verdict
from emp_orch.machine.home.folder import AgentState
from emp_orch.machine.listener import SupervisorEvent, parse_pairs
from emp_orch.machine.observe.exits import KEPT, is_unasked_end, with_end
from emp_orch.machine.observe.rivals import RIVAL_S, Rival, Rivals
from emp_orch.procident import ancestors
from emp_orch.store.redis.client import address
from support.fleet.fleets import COMFYUI, SETUP, SIMULATION, one, report

M = one([SIMULATION, COMFYUI, SETUP])
S = ProgramState


# -- ends


@pytest.mark.parametrize(
    ("name", "payload", "once", "expected"),
    [
        ("PROCESS_STATE_EXITED", "from_state:RUNNING expected:0 pid:9", False, True),
        # A service that ends well is started again like one that does not.
        ("PROCESS_STATE_EXITED", "from_state:RUNNING expected:1 pid:9", False, True),
        ("PROCESS_STATE_EXITED", "from_state:RUNNING expected:1 pid:9", True, False),
        ("PROCESS_STATE_EXITED", "from_state:RUNNING expected:0 pid:9", True, True),
        ("PROCESS_STATE_BACKOFF", "from_state:STARTING tries:1", False, True),
        ("PROCESS_STATE_FATAL", "from_state:BACKOFF", False, False),
        ("PROCESS_STATE_STOPPING", "from_state:RUNNING pid:9", False, False),
        ("PROCESS_STATE_STOPPED", "from_state:STOPPING pid:9", False, False),
        ("PROCESS_STATE_STARTING", "from_state:EXITED tries:0", False, False),
    ],
)
def test_which_events_are_ends_that_nobody_asked_for(name: str, payload: str, once: bool, expected: bool) -> None:
    event = SupervisorEvent(name=name, fields=parse_pairs(f"processname:p groupname:p {payload}"))
    assert is_unasked_end(event, once=once) is expected


def test_the_last_few_ends_are_kept() -> None:
    ends: tuple[int, ...] = ()
    for ms in range(20):
        ends = with_end(ends, ms)
    assert ends == tuple(range(20 - KEPT, 20))


# -- documents of an older agent


def test_what_an_older_agent_wrote_still_decodes() -> None:
    new = {"ends_ms", "port_taken_by", "gpu_error", "redis", "rival", "disk_error"}
    document = msgspec.to_builtins(report(M).report)
    old = {k: v for k, v in document.items() if k not in new}
    assert msgspec.convert(old, MachineReport) == report(M).report
    state = {"boot_id": "1-1", "announced": ["x"], "last_command": "3-0", "epoch": 2}
    assert msgspec.convert(state, AgentState).stopped == ()
    assert WorkerReport.__struct_fields__[-2:] == ("redis", "store_error")


# -- rivals

MINE = report(M).report
OWN = msgspec.json.encode(MINE).decode()


def theirs(boot_id: str, host: str = MINE.host) -> str:
    return msgspec.json.encode(msgspec.structs.replace(MINE, boot_id=boot_id, host=host)).decode()


def test_a_rival_counts_until_it_has_been_silent_for_a_while() -> None:
    rivals = Rivals()
    assert rivals.current(0) == ""
    assert rivals.heard(MINE, theirs("2-2"), 100) == Rival("2-2", MINE.host)
    assert rivals.heard(MINE, theirs("2-2"), 105) is None, "told once"
    # It only touches the time now, so the document is our own.
    assert rivals.heard(MINE, OWN, 110) is None
    assert rivals.current(110 + RIVAL_S - 0.1) == f"2-2 on {MINE.host}"
    assert rivals.current(110 + RIVAL_S) == ""
    assert rivals.heard(MINE, theirs("2-2"), 200) == Rival("2-2", MINE.host), "it is back"
    assert rivals.heard(MINE, theirs("3-3", "there"), 201) == Rival("3-3", "there")


@pytest.mark.parametrize("document", [OWN, "{", "7", '{"boot_id": 7, "host": "x"}', ""])
def test_no_rival_without_its_own_document(document: str) -> None:
    rivals = Rivals()
    assert rivals.heard(MINE, document, 100) is None
    assert rivals.current(100) == ""


def test_the_same_boot_id_on_another_host_is_a_rival_and_its_words_are_only_shown() -> None:
    rivals = Rivals()
    assert rivals.heard(MINE, theirs(MINE.boot_id, "a\nb" + "x" * 500), 0) is not None
    shown = rivals.current(0)
    assert shown.startswith(f"{MINE.boot_id} on a\\nb") and len(shown) < 200 and shown.isprintable()


# -- ports


def program(name: str) -> DesiredProgram:
    found = M.program(ProgramName(name))
    assert found is not None
    return found


CHECKED, PLAIN, STEP, WORKER = map(program, ("comfyui-gpu0", "simulation", "prepare", "redis-worker-gpu0"))


@pytest.mark.parametrize(
    ("want", "state", "healthy", "trouble"),
    [
        (CHECKED, S.RUNNING, True, False),
        (CHECKED, S.RUNNING, None, True),
        (CHECKED, S.RUNNING, False, True),
        (CHECKED, S.STARTING, None, True),
        (CHECKED, S.BACKOFF, None, True),
        (CHECKED, S.FATAL, None, True),
        (CHECKED, S.EXITED, None, True),
        (CHECKED, S.STOPPED, None, False),
        (CHECKED, S.STOPPING, False, False),
        (PLAIN, S.RUNNING, None, False),
        (PLAIN, S.STARTING, None, False),
        (PLAIN, S.BACKOFF, None, True),
        (STEP, S.EXITED, None, False),
        (WORKER, S.FATAL, None, False),  # it has no port
    ],
)
def test_when_a_port_is_looked_at(
    want: DesiredProgram, state: ProgramState, healthy: bool | None, trouble: bool
) -> None:
    got = ProgramReport(state=state, pid=7, healthy=healthy)
    assert in_trouble(want, got) is trouble
    assert to_look_at(want, got) is trouble


@pytest.mark.parametrize(
    ("state", "healthy", "again"),
    [(S.RUNNING, None, True), (S.STARTING, None, True), (S.STOPPED, None, False), (S.RUNNING, True, False)],
)
def test_a_port_that_was_taken_is_looked_at_until_the_program_is_well_or_stopped(
    state: ProgramState, healthy: bool | None, again: bool
) -> None:
    assert to_look_at(PLAIN, ProgramReport(state=state, healthy=healthy, port_taken_by="pid 1 (x)")) is again


OURS = Holder(pid=5, group=5, command="ours", name="ours")
STRANGER = Holder(pid=os.getppid(), group=1, command="nginx --secret x", name="nginx")
HIDDEN = Holder(pid=0, group=0, command="")
TAKEN = f"pid {STRANGER.pid} (nginx)"
ME, DOWN = os.getpid(), 0


@pytest.mark.parametrize(
    ("pid", "told", "holders", "expected"),
    [
        (DOWN, "", [], ""),
        (DOWN, "", [OURS], ""),
        (DOWN, "", [STRANGER], TAKEN),
        (DOWN, "", [STRANGER, OURS], ""),
        (DOWN, "", [HIDDEN], "another user's process"),
        (ME, "", [STRANGER], TAKEN),  # older than the program
        (STRANGER.pid, TAKEN, [Holder(pid=ME, group=1, command="", name="py")], ""),  # younger than it
        (ME, "", [HIDDEN], ""),
        (ME, "another user's process", [HIDDEN], "another user's process"),
        (ME, TAKEN, [], ""),
    ],
    # process ids stand in the values, and workers of xdist must agree on names
    ids=[
        *("nobody", "ours", "a stranger", "a stranger and ours", "hidden"),
        *("an older one", "a younger one", "hidden, while it runs", "still hidden", "free again"),
    ],
)
def test_who_took_a_port(pid: int, told: str, holders: list[Holder], expected: str) -> None:
    asked = Asked(name=PLAIN.name, port=8299, pid=pid, told=told)
    assert verdict(asked, holders, is_ours=lambda h: h is OURS) == expected


def test_ours_are_the_children_of_supervisord_and_the_groups_of_its_programs() -> None:
    serve = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
    argv = [sys.executable, "-c", serve + "sys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        asked = [Asked(name=PLAIN.name, port=int(child.stdout.readline()), pid=0, told="")]
        nobody = 2**22 + 1
        assert ports.look(asked, frozenset(), os.getpid()) == {PLAIN.name: ""}
        assert ports.look(asked, frozenset({child.pid}), nobody) == {PLAIN.name: ""}
        (said,) = ports.look(asked, frozenset(), nobody).values()
        assert said.startswith(f"pid {child.pid} (python")
        assert ancestors(child.pid)[0] == os.getpid() and ancestors(child.pid)[-1] == ancestors(os.getpid())[-1]
        child.communicate()
    assert ports.look(asked, frozenset(), nobody) == {PLAIN.name: ""}


# -- addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:6380/3", "h:6380/3"),
        ("redis://h", "h:6379/0"),
        ("rediss://user:p%40ss@h:7/1?ssl_cert_reqs=none", "h:7/1"),
        ("redis://:secret@[::1]:6380/0", "[::1]:6380/0"),
        ("redis://h:6380?db=2&password=secret", "h:6380/2"),
        ("unix://user:secret@/run/redis.sock?db=1", "unix:/run/redis.sock/1"),
        ("", ""),
        ("http://h", ""),
        ("redis://h:port/0", ""),
    ],
)
def test_where_a_redis_is_without_its_login(url: str, expected: str) -> None:
    assert address(url) == expected
