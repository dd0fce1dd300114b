"""`emp status`, `emp doctor`, `emp logs` and `emp render` on a real fleet, whole, broken and down."""

from __future__ import annotations

import configparser
import json
import socket
from typing import Any

import pytest

from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.settings import load, save
from support.stack.stack import MACHINE, Stack, until

WORKER = "redis-worker-gpu1"


def plane(stack: Stack) -> Supervisor:
    return Supervisor(stack.layout.control)


def machine(stack: Stack) -> Supervisor:
    return Supervisor(stack.layout.machine(MACHINE))


def doctor(stack: Stack) -> tuple[int, dict[str, Any]]:
    done = stack.run("doctor", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def failures(stack: Stack) -> dict[str, str]:
    """check → what, of the findings that are wrong."""
    return {f["check"]: f["what"] for f in doctor(stack)[1]["findings"] if f["level"] == "fail"}


def until_well(stack: Stack) -> None:
    until("the doctor finds nothing", lambda: doctor(stack)[0] == 0)
    until("everything runs", lambda: stack.run("status").returncode == 0)


def test_all_is_well(stack: Stack) -> None:
    until_well(stack)
    code, found = doctor(stack)
    assert (code, found["ok"], found["counts"]["fail"], found["counts"]["unknown"]) == (0, True, 0, 0)
    assert {f["group"] for f in found["findings"]} == {
        *("basics", "control plane", "Redis", "API and page", "Docker hosts", "machines", "workers")
    }
    status = stack.run("status", "--json")
    assert status.returncode == 0, status.stdout
    seen = json.loads(status.stdout)
    assert seen["verdict"] == "everything runs"
    assert {p["name"]: p["state"] for p in seen["control_plane"]["parts"]} == dict.fromkeys(
        ("redis", "api", "reconcile", "monitor", "eventlog"), "RUNNING"
    )
    assert [(m["machine_id"], m["status"], m["programs_up"], m["workers"]) for m in seen["machines"]] == [
        (MACHINE, "ready", 8, {"idle": 2})
    ]
    screen = stack.run("status").stdout
    assert screen.startswith("test: everything runs, generation 1\n")
    assert f"{MACHINE}-worker-1  idle " in screen
    assert screen.endswith("drift  none\n")


def test_logs_of_a_running_fleet(stack: Stack) -> None:
    both = stack.ok("logs", "-n", "5000")
    assert f"machine-{MACHINE}/agent" in both
    assert "Ready to accept connections" in both
    assert "full_state_snapshot" not in both
    assert "full_state_snapshot" in stack.ok("logs", "monitorEventStream")
    times = [json.loads(line)["at"] for line in stack.ok("logs", "--json", "-n", "5000").splitlines()]
    assert times == sorted(times)
    stack.ok("logs", "--clear", MACHINE)
    assert stack.ok("logs", f"{MACHINE}/agent") == ""
    stack.ok("restart", MACHINE, "comfyui-gpu0")
    written = until("new lines after the clearing", lambda: stack.ok("logs", f"{MACHINE}/comfyui-gpu0"))
    assert written.startswith("20")
    assert b"\0" not in (stack.layout.logs / f"machine-{MACHINE}" / "comfyui-gpu0.log").read_bytes()
    until_well(stack)


def test_render_is_what_the_machine_runs(stack: Stack) -> None:
    text = stack.ok("render", "--machine", MACHINE)
    assert text == (stack.layout.machine(MACHINE) / "supervisord.conf").read_text()
    parsed = configparser.RawConfigParser()
    parsed.read_string(text)
    assert "program:comfyui-gpu1" in parsed.sections()
    stack.ok("render", "--out", "rendered")
    assert (stack.root / "rendered" / f"{MACHINE}.supervisord.conf").read_text() == text
    unknown = stack.run("render", "--machine", "basic-machine-locale")
    assert (unknown.returncode, "did you mean basic-machine-local?" in unknown.stderr) == (2, True)


async def test_a_stopped_api(stack: Stack) -> None:
    stack.ok("pause", "--reason", "the reconciler would start it")
    await plane(stack).stop("api")
    try:
        assert stack.run("status").returncode == 2
        found = failures(stack)
        assert found["parts"].startswith("api is STOPPED; its log ends: ")
        assert found["api"].startswith("the API does not answer: ")
        assert found["subscribers"] == "nobody is subscribed to machine:startup:events"
        assert "machine-runs" not in found
    finally:
        await plane(stack).start("api")
        stack.ok("resume")
    until_well(stack)


async def test_a_stopped_worker_and_a_silent_reconciler(stack: Stack) -> None:
    await plane(stack).stop("reconcile")
    try:
        await machine(stack).stop(WORKER)
        found = failures(stack)
        assert found["worker-programs"].startswith(f"{WORKER} on {MACHINE} is STOPPED; its log ends: ")
        assert found["parts"].startswith("reconcile is STOPPED")
        status = stack.run("status")
        assert status.returncode == 2
        assert "program-stopped redis-worker-gpu1" in status.stdout
    finally:
        await plane(stack).start("reconcile")
    until_well(stack)


async def test_a_redis_that_is_away(stack: Stack) -> None:
    await plane(stack).stop("redis")
    try:
        status = stack.run("status", "--json")
        assert status.returncode == 2
        seen = json.loads(status.stdout)
        assert "does not answer" in seen["control_plane"]["redis"]["error"]
        # Without Redis its supervisord tells what runs.
        assert [(m["instance"], m["programs_up"]) for m in seen["machines"]] == [("running", 8)]
        code, found = doctor(stack)
        levels = {f["check"]: f["level"] for f in found["findings"]}
        assert (code, levels["redis"], levels["machine-reports"], levels["machine-runs"]) == (
            1,
            "fail",
            "unknown",
            "ok",
        )
        assert failures(stack)["api"] == "the API runs, but Redis does not answer it"
    finally:
        await plane(stack).start("redis")
    until_well(stack)


def test_machines_that_were_given_another_redis(stack: Stack) -> None:
    import msgspec

    settings = load(stack.layout)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://:hush@127.0.0.1:{nobody.getsockname()[1]}/0"
    save(stack.layout, msgspec.structs.replace(settings, machine_redis_url=url))
    try:
        done = stack.run("doctor")
        assert done.returncode == 1
        assert "machines are told to use this Redis, and it does not answer" in done.stdout
        assert f"agent of {MACHINE} uses Redis {stack.redis_without_login}, not redis://***@" in done.stdout
        assert "hush" not in done.stdout + done.stderr
    finally:
        save(stack.layout, settings)
    until_well(stack)


@pytest.fixture
def taken(folder_stack: Stack) -> Any:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", folder_stack.ports["api"]))
        s.listen()
        yield folder_stack


def test_a_foreign_process_on_a_port_before_the_first_apply(taken: Stack) -> None:
    assert taken.run("status").returncode == 1
    found = failures(taken)
    assert list(found) == ["ports"]
    assert found["ports"].startswith(f"port {taken.ports['api']} (api.port) is taken by ")


def test_status_when_nothing_runs_and_when_supervisord_is_killed(folder_stack: Stack) -> None:
    import signal

    from emp_orch.procident import send, wait_end

    stack = folder_stack
    never = stack.run("status")
    assert (never.returncode, "nothing runs" in never.stderr) == (1, True)
    stack.up(NUM_GPUS="0")
    who = stack.control("supervisord")
    assert send(who, signal.SIGKILL)
    assert wait_end(who, 10)
    assert stack.run("status").returncode == 2
    found = doctor(stack)[1]["findings"]
    assert any(f["check"] == "orphans" and f["what"].startswith("redis of the control plane") for f in found)
    stack.ok("down")
    down = stack.run("status")
    assert (down.returncode, down.stdout.splitlines()[0]) == (1, "test: nothing runs, generation 1")
    assert failures(stack)["supervisord"] == "the control plane does not run: its supervisord is gone"
