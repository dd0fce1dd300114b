"""A fleet's folder is moved, copied, or loses what emp keeps in it while the fleet runs: what runs stays known."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch import marks
from emp_orch.procident import ProcessIdentity, alive
from support.stack.stack import Stack, until

MACHINE = "box"


def small(folder: Path) -> Stack:
    """A fleet of one machine with one program: what it runs does not matter here."""
    stack = Stack(folder)
    stack.file.write_text(
        f"""version: 1
name: {folder.name}
redis: {{url: embedded, port: {stack.ports["redis"]}}}
api: {{port: {stack.ports["api"]}}}
monitor: {{port: {stack.ports["monitor"]}}}
services:
  held: {{scale: per_machine, command: [sleep, infinity]}}
machines:
  {MACHINE}: {{num_gpus: 0, services: [held]}}
reconcile: {{interval: 500ms}}
"""
    )
    return stack


def elsewhere(stack: Stack, folder: Path) -> Stack:
    """The same fleet's file, as `emp -C folder` finds it."""
    other = Stack.__new__(Stack)
    other.__dict__.update(stack.__dict__)
    other.root, other.layout, other.file = folder, type(stack.layout)(folder), folder / "emp.yaml"
    return other


def of(*stacks: Stack) -> list[marks.Marked]:
    """Every process that was started for the fleet of one of these folders."""
    return [one for one in marks.marked() if Path(one.folder) in {s.root for s in stacks}]


def lasting(stack: Stack) -> set[ProcessIdentity]:
    """Who runs as long as the fleet does: all but what it starts for a moment."""
    daemons = ("supervisord", "redis", "api", "reconcile", "monitor", "eventlog")
    return {*map(stack.control, daemons), *(stack.program(n, MACHINE) for n in ("supervisord", "agent", "held"))}


def removed(folder: Path) -> None:
    """As `rm -rf` does it, beside who may write there."""
    until(f"{folder} is gone", lambda: subprocess.run(["rm", "-rf", folder]).returncode == 0)


@pytest.fixture
def prod(tmp_path: Path) -> Iterator[Stack]:
    stack = small(tmp_path / "prod")
    try:
        stack.up()
        yield stack
    finally:
        if of(stack):
            stack.run("down", "--all-of", str(stack.root))
        left = of(stack)
        for one in left:
            os.kill(one.who.pid, signal.SIGKILL)
        assert not left


def test_a_copy_is_nobodys_until_it_is_made_a_fleet_of_its_own(prod: Stack, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", prod.root, tmp_path / "staging"], check=True)
    staging = elsewhere(prod, tmp_path / "staging")
    before = lasting(prod)
    assert before <= {one.who for one in of(prod)}
    assert {one.mark.place for one in of(prod)} == {marks.of_folder(prod.root).place}
    for args in (("down",), ("apply", "-y"), ("status",), ("restart", MACHINE), ("diff",), ("pause",), ("jobs",)):
        said = staging.run(*args)
        assert said.returncode != 0, args
        assert f"{staging.root} is a copy of {prod.root}" in said.stderr, (args, said.stderr)
        assert "emp init --own" in said.stderr
    doctor = staging.run("doctor")
    assert doctor.returncode == 1
    assert f"{staging.root} is a copy of {prod.root}" in doctor.stdout
    assert lasting(prod) == before
    assert prod.diff()[0] == 0

    assert "is no copy" in prod.run("init", "--own").stderr
    assert "a fleet of its own" in staging.ok("init", "--own")
    refused = staging.run("apply", "-y")
    assert refused.returncode == 1
    assert f"taken by fleet prod in {prod.root}" in refused.stderr
    fresh = small(tmp_path / "staging")
    fresh.up()
    assert fresh.diff()[0] == 0
    assert {s["name"] for s in json.loads(fresh.ok("status", "--host", "--json"))} >= {"prod", "staging"}
    fresh.ok("down")
    assert not of(fresh)
    assert all(alive(who) for who in before)


def test_a_folder_that_was_moved_is_told_of_and_ended_where_it_is(prod: Stack, tmp_path: Path) -> None:
    before = {one.who for one in of(prod)}
    moved = elsewhere(prod, prod.root.rename(tmp_path / "moved"))
    log = moved.layout.log("reconcile")
    until("the reconciler says so", lambda: "is no longer this fleet's folder" in log.read_text())
    said = moved.run("status")
    assert said.returncode == 2
    assert f"moved from {prod.root}" in said.stdout
    doctor = moved.run("doctor")
    assert doctor.returncode == 1
    assert f"moved from {prod.root}" in doctor.stdout
    refused = moved.run("apply", "-y")
    assert refused.returncode == 2
    assert f"was moved from {prod.root} while its fleet ran" in refused.stderr
    os.kill(moved.program("held", MACHINE).pid, signal.SIGKILL)  # nobody makes the old path again for it
    until("a look at what ended", lambda: "held" in moved.layout.log(f"machine-{MACHINE}").read_text())
    assert not prod.root.exists()
    assert f"({MACHINE})" in moved.ok("down")
    assert not of(prod)
    assert not any(alive(who) for who in before)
    assert not prod.root.exists()
    moved.up()
    assert moved.run("status").returncode == 0
    moved.ok("down")
    assert not of(moved)


def test_without_its_state_a_fleet_still_ends(prod: Stack) -> None:
    removed(prod.layout.state)
    said = prod.run("status")
    assert said.returncode == 2
    assert ".emp/ was removed while its fleet ran" in said.stderr
    refused = prod.run("apply", "-y")
    assert refused.returncode == 2
    assert "`emp down` here ends them" in refused.stderr
    doctor = prod.run("doctor")
    assert doctor.returncode == 1
    assert ".emp/ was removed" in doctor.stdout
    assert f"({MACHINE})" in prod.ok("down")
    assert not of(prod)
    assert not prod.layout.state.exists()


def test_a_fleet_is_ended_from_anywhere_by_its_name(prod: Stack, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    other = elsewhere(prod, nowhere)
    assert "prod" in other.ok("status", "--host")
    unknown = other.run("down", "--all-of", "nobody")
    assert unknown.returncode == 2
    assert str(prod.root) in unknown.stderr
    removed(prod.root)  # nothing but the processes tells of it now
    assert f"{prod.root} (gone)" in other.ok("status", "--host")
    assert json.loads(other.ok("down", "--all-of", str(prod.root), "--json")) == {
        "stopped": [MACHINE],
        "ended": [],
        "runs_on": [],
    }
    assert not of(prod)


def test_removed_logs_come_back_and_a_cut_end_says_what_runs(prod: Stack) -> None:
    kept = sorted(p.relative_to(prod.layout.logs) for p in prod.layout.logs.rglob("*.log"))
    removed(prod.layout.logs)
    # One comes with the next event, the other is of a step that has ended.
    needed = [p for p in kept if p.stem not in ("monitorEventStream", "shared-setup")]
    until("the logs are back", lambda: all((prod.layout.logs / p).exists() for p in needed))
    told = prod.ok("logs", "--lines", "1000")
    assert told.count("this log was removed") >= len(needed)
    os.kill(prod.program("held", MACHINE).pid, signal.SIGKILL)
    until("written anew", lambda: "held" in prod.layout.log(f"machine-{MACHINE}").read_text())
    until("the page's events", lambda: prod.layout.log("monitorEventStream").exists())
    prod.layout.log("api").unlink()
    until("one alone", lambda: prod.layout.log("api").exists())
    # The program that was killed has yet to be up for its second.
    until("ready again", lambda: prod.run("status").returncode == 0)
    ctrl_c_in_down(prod)


def ctrl_c_in_down(prod: Stack) -> None:
    """It says what still runs; the same fleet serves for it."""
    supervisord, reconciler = prod.program("supervisord", MACHINE), prod.control("reconcile")
    os.kill(supervisord.pid, signal.SIGSTOP)  # so that there is time
    try:
        going = subprocess.Popen(prod.argv("down"), stderr=subprocess.PIPE, text=True)
        until("it is on its way", lambda: not alive(reconciler))
        going.send_signal(signal.SIGINT)
        _, said = going.communicate(timeout=60)
    finally:
        os.kill(supervisord.pid, signal.SIGCONT)
    assert going.returncode == 1
    assert f"still running: machine {MACHINE}, the control plane" in said
    assert "`emp down` again goes on" in said
    prod.ok("down")


def stack_without_rights(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    """`emp` as root without its capabilities: a user like others."""
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *stack.argv(*args)]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_another_user_is_told_whose_fleet_it_is(tmp_path: Path) -> None:
    stack = small(tmp_path / "prod")
    stack.layout.control.mkdir(parents=True)
    stack.layout.settings.write_text("{}")
    for path in (stack.layout.settings, stack.layout.control, stack.layout.state):
        path.chmod(0o700)
        os.chown(path, 65534, 65534)
    owner = pwd.getpwuid(65534).pw_name
    for args in (("status",), ("down",), ("apply", "-y"), ("start",), ("restart", MACHINE), ("diff",), ("doctor",)):
        done = stack_without_rights(stack, *args)
        assert "fault in emp" not in done.stderr, (args, done.stderr)
        assert f"is {owner}'s" in done.stderr + done.stdout, (args, done.stderr)
        assert done.returncode == (1 if args == ("doctor",) else 3), args
    stack.root.chmod(0o700)
    os.chown(stack.root, 65534, 65534)
    for args in (("status",), ("down",), ("apply", "-y"), ("logs",), ("doctor",), ("validate",), ("init",)):
        done = stack_without_rights(stack, *args)
        assert "fault in emp" not in done.stderr, (args, done.stderr)
        assert done.returncode != 0, args
