"""What a real machine tells of itself, so that the reconciler can judge, and how it stops a program when told to."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineReport, MachineStatus, ProgramState
from emp_orch.host import gpus
from emp_orch.store.fleet.commands import CommandVerb
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.reports.reports import machine_writer
from support.fleet.fleets import HEALTH, service
from support.machine.machine import KEYS, Box, M, desired, running, sleeper, web
from support.redis.server import Server, free_port, until

READY = MachineStatus.READY


@pytest.fixture
async def box(tmp_path: Path, r: Client, server: Server) -> AsyncIterator[Box]:
    made = Box(tmp_path, r, server.url)
    yield made
    await made.stop()


async def test_where_its_redis_is_and_what_gpus_it_has(box: Box, server: Server) -> None:
    await box.start(desired(sleeper("a")))
    found = await box.until(lambda m: m.status is READY)
    assert found.redis == f"127.0.0.1:{server.port}/0"
    try:
        look = gpus.look()
    except gpus.NoDriver:
        assert (found.gpus, found.gpu_error) == ((), "")
    else:
        assert [g.uuid for g in found.gpus] == [g.uuid for g in look.gpus]


# -- ends


async def test_ends_that_nobody_asked_for_are_told_and_survive_the_agent(box: Box, r: Client) -> None:
    await box.start(desired(sleeper("a"), sleeper("b")))
    found = await box.until(lambda m: m.status is READY)
    assert {p.ends_ms for p in found.programs.values()} == {()}, "a set-up step that ends well is meant to end"

    before = await time_ms(r)
    await box.kill("a")
    told = await box.until_program("a", lambda p: p.ends_ms and running(p))
    assert len(told.ends_ms) == 1 and before <= told.ends_ms[0] + 50 and told.ends_ms[0] <= await time_ms(r) + 50

    agent = await box.kill("agent")
    await until(lambda: _is_new(box, agent.pid))
    await box.kill("a")
    again = await box.until_program("a", lambda p: len(p.ends_ms) == 2 and running(p))
    assert again.ends_ms[0] == pytest.approx(told.ends_ms[0], abs=5_000) and again.ends_ms[1] >= again.ends_ms[0]

    # Asked for: not counted, and whoever asked has dealt with what was before.
    assert (await box.command(CommandVerb.RESTART_PROGRAM, "a")).ok
    assert (await box.command(CommandVerb.RESTART_PROGRAM, "b")).ok
    await box.until(
        lambda m: all(p.pid and running(p) and p.ends_ms == () for n, p in m.programs.items() if n in ("a", "b"))
    )


async def _is_new(box: Box, pid: int) -> bool:
    who = box.program("agent")
    return who is not None and who.pid != pid


async def test_a_program_that_ends_over_and_over_shows_it(box: Box) -> None:
    """It stays up for its start seconds and ends well: supervisord starts it again without end."""
    await box.start(desired(service("short", command=("sleep", "1.2"), start_s=1.0), sleeper("a")))
    told = await box.until_program("short", lambda p: len(p.ends_ms) == 8)
    assert list(told.ends_ms) == sorted(told.ends_ms)
    later = await box.until_program("short", lambda p: p.ends_ms[-1] > told.ends_ms[-1])
    assert len(later.ends_ms) == 8
    now = await box.report()
    assert now is not None and now.programs[ProgramName("a")].ends_ms == ()


async def test_a_program_that_never_comes_up_shows_each_try(box: Box) -> None:
    await box.start(desired(service("broken", command=("false",), start_s=1.0)))
    told = await box.until_program("broken", lambda p: p.state is ProgramState.FATAL)
    assert len(told.ends_ms) == 4  # the first try and startretries=3


async def test_a_changed_program_begins_anew(box: Box) -> None:
    await box.start(desired(sleeper("a"), sleeper("b")))
    await box.until(lambda m: m.status is READY)
    await box.kill("a")
    await box.kill("b")
    await box.until(lambda m: all(m.programs[ProgramName(n)].ends_ms for n in ("a", "b")))
    await box.write(desired(sleeper("a"), sleeper("b", env={"NEW": "1"})))
    assert (await box.command(CommandVerb.APPLY_CONFIG)).ok
    found = await box.until(lambda m: m.generation == 2 and m.status is READY)
    assert len(found.programs[ProgramName("a")].ends_ms) == 1
    assert found.programs[ProgramName("b")].ends_ms == ()


# -- ports


async def test_a_port_taken_by_somebody_else_is_told_until_it_is_free(box: Box) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=box.root) as stranger:
        try:
            await until(lambda: _listened(port))
            await box.start(desired(web("site", port), sleeper("a")))
            name = Path(f"/proc/{stranger.pid}/comm").read_text().strip()
            told = await box.until_program("site", lambda p: p.port_taken_by)
            assert told.port_taken_by == f"pid {stranger.pid} ({name})"
            await box.until_program("site", lambda p: p.state is ProgramState.FATAL and p.port_taken_by)
        finally:
            stranger.kill()
    free = await box.until_program("site", lambda p: not p.port_taken_by)
    assert free.state is ProgramState.FATAL
    assert (await box.command(CommandVerb.START_PROGRAM, "site")).ok
    await box.until_program("site", lambda p: p.healthy)
    assert (await box.until(lambda m: m.status is READY)).programs[ProgramName("site")].port_taken_by == ""


async def test_a_port_held_by_the_program_itself_its_child_or_a_sibling_is_not_taken(box: Box) -> None:
    """The health check fails all the while; a child in a session of its own listens."""
    own, shared = free_port(), free_port()
    child = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], start_new_session=True)"
    argv = (sys.executable, "-c", child, "-m", "http.server", "--bind", "127.0.0.1")
    failing = web("child", own)
    assert failing.health is not None
    failing = msgspec.structs.replace(
        failing, command=(*argv, "${port}"), health=msgspec.structs.replace(failing.health, http="/nothing-here")
    )
    await box.start(desired(web("first", shared), web("second", shared, depends_on=("first",)), failing))
    await box.until_program("second", lambda p: p.state is ProgramState.FATAL)
    found = await box.until_program("child", lambda p: "answered 404" in p.detail and running(p))
    assert found.port_taken_by == ""
    # Its own child, and its sibling, are looked at as long as the trouble lasts.
    later = await box.until(lambda m: len(m.programs[ProgramName("second")].ends_ms) >= 4)
    assert {p.port_taken_by for p in later.programs.values()} == {""}


async def _listened(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


# -- rivals


async def test_another_agent_under_the_same_id_is_told_for_as_long_as_it_writes(box: Box, r: Client) -> None:
    await box.start(desired(sleeper("a")))
    mine = await box.until(lambda m: m.status is READY)
    assert mine.rival == ""
    other = msgspec.structs.replace(mine, boot_id="7-7", host="elsewhere\x1b[2J")
    await machine_writer(r, KEYS, M).write(other)

    def ours(m: MachineReport) -> bool:
        return m.boot_id == mine.boot_id

    named = r"7-7 on elsewhere\x1b[2J"
    assert (await box.until(lambda m: ours(m) and m.rival)).rival == named
    await until(lambda: box.events("machine_conflict"))
    (conflict,) = await box.events("machine_conflict")
    assert (conflict["machine_id"], conflict["boot_id"], conflict["other"]) == (M, mine.boot_id, "7-7")
    # It has written nothing since: ten seconds later it is taken for gone.
    await box.until(lambda m: ours(m) and not m.rival)


async def test_a_restart_is_no_rival(box: Box) -> None:
    machine = desired(sleeper("a"))
    await box.start(machine)
    first = await box.until(lambda m: m.status is READY)
    agent = await box.kill("agent")
    await until(lambda: _is_new(box, agent.pid))
    await box.until(lambda m: m.started_ms > first.started_ms and m.status is READY)
    await box.stop()
    await box.start(machine)
    second = await box.until(lambda m: m.boot_id != first.boot_id and m.status is READY)
    assert second.rival == ""
    assert await box.events("machine_conflict") == []


# -- a stop by command


async def test_a_program_stopped_by_command_stays_stopped_until_it_is_started(box: Box) -> None:
    await box.start(desired(sleeper("a"), sleeper("b")))
    await box.until(lambda m: m.status is READY)
    assert (await box.command(CommandVerb.STOP_PROGRAM, "a")).ok
    stopped = await box.until_program("a", lambda p: p.state is ProgramState.STOPPED)
    assert stopped.ends_ms == () and box.program("a") is None

    # Neither a new configuration, nor a new agent, nor a second stop changes that.
    await box.write(desired(sleeper("a"), sleeper("b", env={"NEW": "1"}), sleeper("c")))
    assert (await box.command(CommandVerb.APPLY_CONFIG)).ok
    found = await box.until(lambda m: m.generation == 2 and m.status is READY)
    assert found.programs[ProgramName("a")].state is ProgramState.STOPPED
    agent = await box.kill("agent")
    await until(lambda: _is_new(box, agent.pid))
    await box.until(lambda m: m.started_ms > found.started_ms and m.status is READY)
    assert (await box.command(CommandVerb.STOP_PROGRAM, "a")).ok
    assert box.program("a") is None

    assert (await box.command(CommandVerb.START_PROGRAM, "a")).ok
    await box.until_program("a", running)
    await box.kill("a")
    await box.until_program("a", lambda p: running(p) and len(p.ends_ms) == 1)


async def test_ends_are_counted_anew_after_a_command(box: Box) -> None:
    await box.start(desired(sleeper("a"), sleeper("b")))
    for verb in (CommandVerb.RESTART_PROGRAM, CommandVerb.STOP_PROGRAM, CommandVerb.START_PROGRAM):
        if verb is not CommandVerb.START_PROGRAM:
            await box.until_program("a", running)
            await box.kill("a")
            await box.until_program("a", lambda p: running(p) and len(p.ends_ms) == 1)
        assert (await box.command(verb, "a")).ok
        await box.until_program("a", lambda p: p.ends_ms == ())


async def test_a_stop_reaches_a_program_between_two_lives(box: Box) -> None:
    await box.start(desired(service("short", command=("sleep", "1.2"), start_s=1.0), sleeper("a")))
    await box.until_program("short", lambda p: p.ends_ms)
    for _ in range(3):
        assert (await box.command(CommandVerb.STOP_PROGRAM, "short")).ok
        stopped = await box.until_program("short", lambda p: p.state is ProgramState.STOPPED)
        assert (await box.command(CommandVerb.START_PROGRAM, "short")).ok
        await box.until_program("short", lambda p, n=stopped.ends_ms[-1:]: p.ends_ms[-1:] != n)  # type: ignore[misc]


async def test_what_comes_after_a_stopped_program_waits_for_it(box: Box) -> None:
    port = free_port()
    first = msgspec.structs.replace(web("first", port), command=("sleep", "100000"))
    await box.start(desired(first, sleeper("then", depends_on=("first",))))
    await box.until_program("first", lambda p: running(p) and p.detail)
    assert (await box.command(CommandVerb.STOP_PROGRAM, "first")).ok
    await box.until_program("first", lambda p: p.state is ProgramState.STOPPED)
    assert (await box.command(CommandVerb.STOP_PROGRAM, "nobody")).error == "no program 'nobody' on m"
    found = await box.until(lambda m: "then" in m.error)
    assert (found.error, found.status) == ("not up: then", MachineStatus.CONFIGURING)
    await box.write(desired(sleeper("first"), sleeper("then", depends_on=("first",))))
    assert (await box.command(CommandVerb.APPLY_CONFIG)).ok
    assert (await box.command(CommandVerb.START_PROGRAM, "first")).ok
    ready = await box.until(lambda m: m.status is READY)
    assert running(ready.programs[ProgramName("first")]) and running(ready.programs[ProgramName("then")])


async def test_a_start_up_that_outlasts_its_time_is_told_from_later_trouble(box: Box, tmp_path: Path) -> None:
    """It listens only when it is let; once it has passed, the same answer is another trouble."""
    let, port = tmp_path / "let", free_port()
    code = (
        "import http.server, os, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        f"  def do_GET(self): self.send_response(200 if os.path.exists({str(let)!r}) else 503); self.end_headers()\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    )
    health = msgspec.structs.replace(HEALTH, http="/", interval_s=0.1, startup_s=0.5, failures=2)
    await box.start(desired(service("slow", command=(sys.executable, "-c", code), port=port, health=health)))
    late = await box.until_program("slow", lambda p: p.healthy is False)
    assert late.never_healthy and "503" in late.detail
    let.touch()
    well = await box.until_program("slow", lambda p: p.healthy is True)
    assert (well.never_healthy, well.pid) == (False, late.pid)
    let.unlink()
    ill = await box.until_program("slow", lambda p: p.healthy is False)
    assert (ill.never_healthy, ill.pid) == (False, late.pid)


async def test_services_that_wait_for_none_start_together(box: Box, tmp_path: Path) -> None:
    others = [sleeper(f"s{n}", start_s=2.0) for n in range(30)]
    await box.start(desired(*others, sleeper("last", start_s=1.0, depends_on=("s0", "s29"))))
    await box.until(lambda m: m.status == "ready")
    log = (tmp_path / "logs" / "machine-m.log").read_text()
    spawned = [log.index(f"spawned: '{s.name}' ") for s in others]
    first_up = min(log.index(f"success: {s.name} entered RUNNING") for s in others)
    # None has been up for its two seconds before the last of them was started.
    assert max(spawned) < first_up
    assert log.index("spawned: 'last' ") > max(log.index(f"success: {name} entered RUNNING") for name in ("s0", "s29"))
