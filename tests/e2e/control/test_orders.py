"""What people order, on a real fleet: pause, drain, resume; and what the journal tells of a repair afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from emp_orch.procident import alive
from support.stack.stack import MACHINE, Stack, until

FRAGILE = "fragile"


@pytest.fixture
def up(folder_stack: Stack) -> Stack:
    """One GPU slot, and a program that starts unless there is a file `broken` in the fleet's folder."""
    config = yaml.safe_load(folder_stack.file.read_text())
    script = f"test -e '{_switch(folder_stack)}' && exit 1; exec sleep 100000"
    config["services"][FRAGILE] = {"scale": "per_machine", "command": ["sh", "-c", script]}
    config["machines"][MACHINE]["services"].append(FRAGILE)
    # The builtin one draws its pictures in a second: here a job can take as long as it says.
    slow = [sys.executable, "-m", "emp_orch", "simulate", "--port", "${port}", "--dir", "pictures", "--steps", "10000"]
    config["services"]["simulation"].pop("builtin")
    config["services"]["simulation"] |= {"command": slow, "connector": "simulation"}
    config["machines"][MACHINE]["worker"] = {"drain_timeout": "60s"}
    folder_stack.file.write_text(yaml.safe_dump(config, sort_keys=False))
    folder_stack.up(NUM_GPUS="1")
    return folder_stack


def _switch(stack: Stack) -> Path:
    return stack.root / "broken"


def _journal(stack: Stack, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.ok("journal", "--json", "-n", "1000", *args))
    return found


def _fragile(stack: Stack) -> dict[str, Any] | None:
    """What differs of the fragile program, as the reconciler last said."""
    drift = stack.diff()[1]["drift"]
    return next((d for d in drift if d["drift"]["subject"] == FRAGILE and d["action"]), None)


def _doctor(stack: Stack, check: str) -> list[str]:
    found = json.loads(stack.run("doctor", "--json").stdout)["findings"]
    return [f["what"] for f in found if f["check"] == check]


async def test_a_paused_machine_is_left_alone_until_resume(up: Stack) -> None:
    up.ok("pause", MACHINE, "--reason", "I look at it")
    before = up.program("simulation")
    os.kill(before.pid, signal.SIGKILL)
    until("supervisord replaces a killed program", lambda: up.program("simulation") != before)

    _switch(up).touch()
    os.kill(up.program(FRAGILE).pid, signal.SIGKILL)
    key = f"program-fatal/{MACHINE}/{FRAGILE}"
    until("it is FATAL, and held", lambda: (d := _fragile(up)) is not None and d["hold"] == "pause")
    _switch(up).unlink()
    held = _fragile(up)
    assert held is not None and held["drift"]["kind"] == "program-fatal"
    assert held["held"].startswith(f"{MACHINE} is paused: I look at it (by ")
    assert held["drift"]["origin"].startswith("emp.yaml:")

    told = up.ok("explain", FRAGILE)
    assert told.startswith(f"program-fatal of {FRAGILE} on {MACHINE}: stands\n")
    assert f"  waits     {held['held']}" in told
    assert f"`emp resume {MACHINE}` lets emp act again" in told
    line = int(held["drift"]["origin"].split(":")[1])
    assert f"{held['drift']['origin']}: {up.file.read_text().splitlines()[line - 1].strip()}" in told
    status = up.run("status")
    assert status.returncode == 2
    assert f"  pause   {MACHINE}: I look at it (by " in status.stdout
    assert "I look at it" in up.run("diff").stdout
    assert [w.partition(" (by")[0] for w in _doctor(up, "overrides")] == [f"{MACHINE} is paused: I look at it"]
    assert (await up.state())["fleet"]["overrides"][0]["scope"] == MACHINE
    waiting = up.run("apply", "-y", "--timeout", "3", NUM_GPUS="1")
    assert waiting.returncode == 4
    assert f"{FRAGILE} waits: {MACHINE} is paused: I look at it" in waiting.stderr
    assert not _journal(up, "--type", "operation_begun", "--kind", "program-fatal")
    assert [e for e in _journal(up) if e["data"].get("operation") == f"start-program/{MACHINE}/{FRAGILE}"][-1][
        "type"
    ] == "decision", "nothing was begun while it was paused"

    assert up.ok("resume", MACHINE) == f"{MACHINE} is no longer paused\n"
    up.until_in_sync()
    assert alive(up.program(FRAGILE))
    story = json.loads(up.ok("explain", key, "--json"))["drift"]
    assert (story["stands"], story["last"]["tries"][-1]["outcome"]) == (False, "done")
    decisions = [d["decision"] for d in story["last"]["decisions"]]
    assert decisions[0].startswith(f"{MACHINE} is paused") and decisions[1] == "run"
    assert {"paused", "pause_lifted"} <= {e["type"] for e in _journal(up, "--machine", MACHINE)}
    assert up.run("status").returncode == 0


async def test_a_paused_fleet_says_so_everywhere(up: Stack) -> None:
    up.ok("pause", "--reason", "disk swap")
    os.kill(up.program("supervisord").pid, signal.SIGKILL)
    until("the machine is missing, and held", lambda: any(d["hold"] == "pause" for d in up.diff()[1]["drift"]))
    assert "waits: paused: disk swap" in up.run("status").stdout
    up.ok("resume")
    up.until_in_sync()


async def test_an_apply_does_not_wait_for_what_a_pause_holds(up: Stack) -> None:
    up.ok("pause", MACHINE, "--reason", "I look at it")
    text = up.file.read_text()
    config = yaml.safe_load(text)
    config["services"]["simulation"]["env"] = {"CHANGED": "1"}
    up.file.write_text(yaml.safe_dump(config, sort_keys=False))
    waited = up.run(
        "apply", "-y", "--timeout", "300", NUM_GPUS="1"
    )  # it would be told after 300 s: longer than this test may take
    assert waited.returncode == 1, waited.stdout + waited.stderr
    assert "what is left needs a person" in waited.stderr
    assert f"config-behind: {MACHINE}: {MACHINE} is paused: I look at it (by " in waited.stderr
    assert "which `emp resume` ends it" in waited.stderr
    up.ok("resume", MACHINE)
    up.until_in_sync()
    up.file.write_text(text)
    assert up.run("apply", "-y", "--timeout", "60", NUM_GPUS="1").returncode == 0


async def test_a_drain_lets_the_job_finish_and_resume_brings_the_workers_back(up: Stack) -> None:
    kept = {n: up.program(n) for n in ("comfyui-gpu0", "simulation", "agent", "supervisord")}
    payload = json.dumps({"prompt": "a fox", "steps": 300})
    job = json.loads(up.ok("submit", "simulation", "--payload", payload, "--json"))["id"]

    def status() -> str:
        return str(json.loads(up.ok("jobs", "show", job, "--json"))["status"])

    until("the job runs", lambda: status() == "in_progress")
    drain = subprocess.Popen(
        up.argv("drain", MACHINE, "--reason", "GPU swap"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until("the drain is known", lambda: up.run("status").stdout.count(f"  drain   {MACHINE}: GPU swap"))
        if status() == "in_progress":
            assert up.run("status").returncode == 0, "a drain under way is nothing broken"
        out, err = drain.communicate(timeout=90)
    finally:
        drain.kill()
        drain.wait()
    assert drain.returncode == 0, err
    assert f"{MACHINE}-worker-0" in err and job in err
    assert out.startswith(f"{MACHINE} is drained: GPU swap (by ")
    assert status() == "completed"
    up.until_in_sync()
    assert up.redis_reports() == ([MACHINE], [])
    assert up.running(" worker --machine") == []
    assert {n: up.program(n) for n in kept} == kept
    drained = up.run("status")
    assert (drained.returncode, f"{MACHINE}  ready, drained" in drained.stdout) == (0, True)

    # A drained machine is able to serve later: its lanes are not called unworkable.
    later = json.loads(up.ok("submit", "simulation", "--json"))["id"]
    assert "unworkable" not in up.ok("jobs", "explain", later)
    again = up.run("apply", "-y", "--timeout", "60", NUM_GPUS="1")
    assert again.returncode == 0 and again.stdout.startswith("nothing to do"), again.stderr

    up.ok("resume", MACHINE)
    until(
        "the waiting job is done", lambda: json.loads(up.ok("jobs", "show", later, "--json"))["status"] == "completed"
    )
    up.until_in_sync()
    assert up.redis_reports()[1] == [f"{MACHINE}-worker-0"]
    assert {n: up.program(n) for n in kept} == kept
    assert {"drained", "drain_lifted"} <= {e["type"] for e in _journal(up, "--machine", MACHINE)}


async def test_the_journal_of_a_killed_machine_is_whole_and_decided_the_same_again(up: Stack) -> None:
    os.kill(up.program("supervisord").pid, signal.SIGKILL)
    key = f"machine-missing/{MACHINE}/{MACHINE}"

    def closed() -> bool:
        return any(e["data"].get("key") == key for e in _journal(up, "--type", "drift_closed"))

    until("the drift has closed", closed)
    up.until_in_sync()
    operation = f"start-machine/{MACHINE}"
    story = [
        e
        for e in _journal(up, "--machine", MACHINE)
        if e["data"].get("key") == key or (e["data"].get("operation") == operation and "key" not in e["data"])
    ]
    # The first start of all comes first: what follows the last opening is of the kill.
    first = max(n for n, e in enumerate(story) if e["type"] == "drift_opened")
    types = [e["type"] for e in story[first:]]
    assert types[:3] == ["drift_opened", "decision", "operation_begun"]
    assert sorted(types[3:]) == ["drift_closed", "operation_ended"]
    (healed,) = [e for e in story[first:] if e["type"] == "drift_closed"]
    assert healed["data"]["healed_after_ms"] > 0
    (ended,) = [e for e in story[first:] if e["type"] == "operation_ended"]
    assert ended["data"]["outcome"] == "done"
    told = up.ok("explain", key)
    assert f"machine-missing of {MACHINE}: has closed after " in told
    assert f"healed by start machine {MACHINE}" in told

    replay = up.run("journal", "--replay", "-n", "200")
    assert replay.returncode == 0, replay.stdout + replay.stderr
    lines = replay.stdout.splitlines()
    assert lines and all("  same  " in line for line in lines)
    assert any(operation in line for line in lines)


async def test_the_outcome_of_a_command_comes_from_the_machine(up: Stack) -> None:
    up.ok("restart", MACHINE, "simulation")
    operation = f"restart-program/{MACHINE}/simulation"
    until("the journal has the outcome", lambda: _of(up, operation)[-1:] == ["operation_ended"])
    assert _of(up, operation) == ["operation_begun", "operation_sent", "operation_ended"]
    told = [e for e in _journal(up) if e["data"].get("operation") == operation]
    assert told[-1]["data"]["outcome"] == "done"


def _of(stack: Stack, operation: str) -> list[str]:
    return [e["type"] for e in _journal(stack) if e["data"].get("operation") == operation]
