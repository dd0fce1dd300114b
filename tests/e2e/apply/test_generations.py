"""Generations in the hands of a person: history, rollback, scale, and plans that are carried out as they were read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
import yaml

from support.stack.stack import MACHINE, Stack, sleeps, until


@pytest.fixture
def up(folder_stack: Stack) -> Stack:
    folder_stack.up(NUM_GPUS="1")
    return folder_stack


def _edit(stack: Stack, **machine: object) -> None:
    """Set keys of the default machine."""
    config = yaml.safe_load(stack.file.read_text())
    config["machines"][MACHINE].update(machine)
    stack.file.write_text(yaml.safe_dump(config, sort_keys=False))


def _history(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.ok("history", "--json"))
    return found


def _numbers(stack: Stack) -> list[int]:
    return [g["number"] for g in _history(stack)]


async def test_scale_then_back(up: Stack) -> None:
    kept = {n: up.program(n) for n in ("comfyui-gpu0", "redis-worker-gpu0", "simulation", "agent", "supervisord")}
    scaled = up.run("scale", MACHINE, "2", "-y", NUM_GPUS="1")
    assert scaled.returncode == 0, scaled.stderr
    assert scaled.stdout == "test is ready: generation 2, 1 machine, 2 GPU slots\n"
    assert "num_gpus 1 → 2" in scaled.stderr
    line = next(n for n, text in enumerate(up.file.read_text().splitlines(), start=1) if "num_gpus:" in text)
    assert f"note: emp.yaml:{line}:15 says num_gpus: ${{NUM_GPUS:-2}}, which is 1 here" in scaled.stderr
    assert {n: up.program(n) for n in kept} == kept
    assert len(up.running(" worker --machine")) == 2
    assert up.diff()[0] == 0

    back = up.run("rollback", "-y", "--json", NUM_GPUS="2")
    assert back.returncode == 0, back.stderr
    said = json.loads(back.stdout)
    assert (said["generation"], said["changed"], said["why"]) == (3, True, "rollback to 1")
    assert said["emp_yaml_differs"] == [f"~ {MACHINE}: num_gpus 1 → 2"]
    assert {n: up.program(n) for n in kept} == kept
    assert len(up.running(" worker --machine")) == 1

    again = up.run("rollback", "1", "-y", NUM_GPUS="1")
    assert (again.returncode, again.stdout) == (0, "nothing to do: generation 3 of test is what runs\n")
    assert "note:" not in again.stderr, "emp.yaml says the same, as the environment is here"

    found = _history(up)
    assert [(g["number"], g["why"], g["num_gpus"], g["in_force"]) for g in found] == [
        (3, "rollback to 1", 1, True),
        (2, f"scale {MACHINE}=2", 2, False),
        (1, "apply emp.yaml", 1, False),
    ]
    assert [g["changes"] for g in found] == [
        [f"~ {MACHINE}: num_gpus 2 → 1"],
        [f"~ {MACHINE}: num_gpus 1 → 2"],
        [f"+ {MACHINE}"],
    ]
    assert found[0]["digest"] == found[2]["digest"] != found[1]["digest"]
    assert all(g["by"] for g in found)
    table = up.ok("history", "-n", "2").splitlines()
    assert [row.split()[0] for row in table] == ["GEN", "3", "2"]
    async with aiohttp.ClientSession() as session, session.get(f"{up.api}/api/generations") as answer:
        views = (await answer.json())["data"]
    assert [{k: v[k] for k in ("number", "by", "why", "changes")} for v in views] == [
        {k: g[k] for k in ("number", "by", "why", "changes")} for g in found
    ]


def test_what_cannot_be_is_refused_before_anything_is_published(up: Stack) -> None:
    assert up.run("rollback", "-y").returncode == 2
    for args, code, words in (
        (("rollback", "-y"), 2, "generation 1 is the first"),
        (("rollback", "7", "-y"), 2, "generation 7 is not kept"),
        (("rollback", "none"), 2, "not a valid integer"),
        (("scale", MACHINE[:-1], "2", "-y"), 2, f"did you mean {MACHINE}?"),
        (("scale", MACHINE, "65", "-y"), 2, "is not a number from 0 to 64"),
        (("scale", MACHINE, "2"), 2, "nobody to ask"),
    ):
        refused = up.run(*args)
        assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr
        assert "Traceback" not in refused.stderr
    text = up.file.read_text()
    up.file.write_text(text.replace(f"port: {up.ports['monitor']}}}", f"port: {up.ports['comfyui'] + 2}}}"))
    up.up(NUM_GPUS="1")
    refused = up.run("scale", MACHINE, "3", "-y")
    assert refused.returncode == 2
    assert f"port {up.ports['comfyui'] + 2} of comfyui of {MACHINE} is taken by the monitor" in refused.stderr
    assert up.run("scale", MACHINE, "2", "-y").returncode == 0
    _edit(up, num_gpus=1, gpus={"kind": "nvidia", "ids": ["7"]})
    up.up()
    refused = up.run("scale", MACHINE, "2", "-y")
    assert refused.returncode == 2
    assert (
        f"{MACHINE}: gpus.ids has 1, one for each slot; that is not 2" in refused.stderr
        and "emp.yaml:" in refused.stderr
    )
    assert _numbers(up) == [4, 3, 2, 1]
    # There is no driver here, which apply does not wait for, and diff does not hide.
    assert {item["drift"]["kind"] for item in up.diff()[1]["drift"]} == {"gpu-missing"}


def test_replicas_are_scaled_together_and_a_machine_less_stays_until_pruned(folder_stack: Stack) -> None:
    stack = folder_stack
    config = yaml.safe_load(stack.file.read_text())
    config["machines"] = {"farm": {"services": [], "num_gpus": 0, "replicas": 2}}
    stack.file.write_text(yaml.safe_dump(config))
    stack.up()
    config["machines"]["farm"]["replicas"] = 1
    stack.file.write_text(yaml.safe_dump(config))
    stack.ok("apply", "-y", "--prune")
    assert stack.run("scale", "farm", "1", "-y").returncode == 0
    back = stack.run("rollback", "1", "-y")
    assert back.returncode == 0, back.stderr
    assert "+ farm-2  (start): new in generation 1" in back.stderr
    assert stack.run("scale", "farm", "1", "-y", "--json").returncode == 0
    newest = _history(stack)[0]
    assert (newest["number"], newest["why"], newest["num_gpus"]) == (5, "scale farm=1", 2)
    stays = stack.run("rollback", "3", "-y")
    assert stays.returncode == 0
    assert "- farm-2  (remove): not in generation 3; stays until `--prune`" in stays.stderr
    assert stack.layout.machine("farm-2").exists()
    stack.ok("rollback", "3", "-y", "--prune")
    assert not stack.layout.machine("farm-2").exists()
    assert stack.diff()[0] == 0


def test_a_rollback_has_the_secrets_of_its_generation_or_is_refused(up: Stack) -> None:
    _edit(up, env={"TOKEN": {"env": "SECRET_OF_TEST"}})
    up.up(NUM_GPUS="1", SECRET_OF_TEST="hunter2")
    up.ok("scale", MACHINE, "2", "-y")
    held = up.run("rollback", "2", "-y")
    assert held.returncode == 0, "the value is the one that the last apply resolved: " + held.stderr
    _edit(up, env={})
    up.up(NUM_GPUS="1")
    assert _numbers(up)[0] == 5
    refused = up.run("rollback", "2", "-y")
    assert refused.returncode == 2
    assert f"machines.{MACHINE}.env.TOKEN: the environment has no SECRET_OF_TEST" in refused.stderr
    assert _numbers(up)[0] == 5
    back = up.run("rollback", "2", "-y", SECRET_OF_TEST="hunter3")
    assert back.returncode == 0, back.stderr
    environ = Path(f"/proc/{up.program('comfyui-gpu0').pid}/environ").read_bytes().split(b"\0")
    assert b"TOKEN=hunter3" in environ
    told = back.stdout + back.stderr + up.ok("history", "--json")
    assert "hunter" not in told


def test_a_rollback_from_a_broken_file_and_a_fleet_that_is_down(up: Stack) -> None:
    up.ok("scale", MACHINE, "2", "-y")
    up.file.write_text("version: 1\nnme: x\n")
    up.root.joinpath(".env").write_text("not a variable\n")
    back = up.run("rollback", "-y")
    assert back.returncode == 0, back.stderr
    assert "problem" in back.stderr and "emp validate" in back.stderr
    assert up.diff()[0] == 0
    up.ok("down")
    for args in (("history",), ("rollback", "-y"), ("scale", MACHINE, "1", "-y")):
        away = up.run(*args)
        assert away.returncode == 3
        assert "fleet test is down" in away.stderr and "emp start" in away.stderr


def test_a_damaged_generation_is_named(up: Stack) -> None:
    with redis.Redis.from_url(up.redis_url) as r:
        r.set("fleet:test:spec:1", b'{"number": 1}')
    damaged = up.run("history")
    assert damaged.returncode == 1
    assert "fleet:test:spec:1 is damaged" in damaged.stderr and "Traceback" not in damaged.stderr


# -- plans in files


def test_a_plan_is_carried_out_once_and_from_nothing(folder_stack: Stack) -> None:
    stack = folder_stack
    planned = stack.run("diff", "--plan-out", "p.json", NUM_GPUS="1")
    assert planned.returncode == 1, planned.stderr
    assert "fleet test: generation 0 → 1" in planned.stdout and "+ control plane  (start)" in planned.stdout
    assert not stack.layout.state.exists(), "nothing was touched"
    file = stack.root / "p.json"
    assert file.stat().st_mode & 0o777 == 0o600
    plan = json.loads(file.read_text())
    assert (plan["version"], plan["fleet"], plan["base_generation"]) == (1, "test", 0)

    done = stack.run("apply", "--plan", "p.json", NUM_GPUS="1")
    assert done.returncode == 0, done.stderr
    assert "test is ready: generation 1, 1 machine, 1 GPU slot" in done.stdout
    twice = stack.run("apply", "--plan", "p.json", NUM_GPUS="1")
    assert twice.returncode == 1
    assert "generation 1 is in force; the plan follows generation 0" in twice.stderr
    assert "look again: emp diff --plan-out" in twice.stderr

    same = stack.run("diff", "--plan-out", "p.json", NUM_GPUS="1")
    assert same.returncode == 0, "in sync: " + same.stdout
    idle = stack.run("apply", "--plan", "p.json", NUM_GPUS="1")
    assert (idle.returncode, idle.stdout.splitlines()[0]) == (0, "nothing to do: generation 1 of test is what runs")
    assert _numbers(stack) == [1]


def test_a_plan_is_refused_when_what_it_was_made_from_moved(up: Stack) -> None:
    def plan() -> None:
        up.until_in_sync()
        assert up.run("diff", "--plan-out", "p.json", NUM_GPUS="2").returncode == 1

    def refused(why: str, **env: str) -> None:
        done = up.run("apply", "-y", "--plan", "p.json", **{"NUM_GPUS": "2", **env})
        assert done.returncode == 1, done.stdout + done.stderr
        assert why in done.stderr and "nothing was changed" in done.stderr

    plan()
    text = up.file.read_text()
    up.file.write_text(text + "# a word\n")
    refused("emp.yaml was edited")
    up.file.write_text(text)
    refused("the environment gives it other values", NUM_GPUS="3")

    up.ok("restart", MACHINE)
    up.until_in_sync()
    refused("what runs is no longer as it was")

    plan()
    os.kill(up.control("reconcile").pid, signal.SIGSTOP)
    try:
        os.kill(up.program("supervisord").pid, signal.SIGKILL)
        until("it is seen", lambda: up.run("diff").returncode == 1)
        refused("what runs is no longer as it was")
    finally:
        os.kill(up.control("reconcile").pid, signal.SIGCONT)
    assert _numbers(up) == [1]

    plan()
    up.ok("scale", MACHINE, "3", "-y")
    refused("generation 2 is in force; the plan follows generation 1")
    plan()
    done = up.run("apply", "--plan", "p.json", NUM_GPUS="2")
    assert done.returncode == 0, done.stderr
    assert _history(up)[0]["num_gpus"] == 2

    for args, words in (
        (("apply", "--plan", "emp.yaml"), "is no plan"),
        (("apply", "--plan", "gone.json"), "No such file"),
        (("apply", "--plan", "p.json", "--prune"), "part of a plan"),
        (("apply", "--plan", "p.json", "--watch", "-y"), "exclude each other"),
        (("diff", "emp.yaml"), "for --plan-out"),
    ):
        wrong = up.run(*args)
        assert (wrong.returncode, words in wrong.stderr) == (2, True), wrong.stderr


# -- a question on a terminal


def _asking(stack: Stack, theirs: int, *args: str) -> subprocess.Popen[str]:
    """`emp ARGS` with a terminal to ask at, once it has asked."""
    asking = subprocess.Popen(
        stack.argv(*args), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert asking.stderr is not None
    read = ""
    while "apply this?" not in read:
        letter = asking.stderr.read(1)
        assert letter, read
        read += letter
    until("it waits for the answer", lambda: sleeps(asking.pid))
    return asking


def test_a_question_takes_no_and_ctrl_c_for_an_answer(up: Stack, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    asking = _asking(up, theirs, "scale", MACHINE, "2")
    os.write(ours, b"n\n")
    assert asking.wait(20) == 1
    asking.communicate()
    asking = _asking(up, theirs, "rollback", "1", "--prune")
    asking.send_signal(signal.SIGINT)
    assert asking.wait(20) == 1, "without waiting for Enter"
    assert "emp: stopped" in asking.communicate()[1]
    assert _numbers(up) == [1]
