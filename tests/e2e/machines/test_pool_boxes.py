"""Boxes that nobody named: two join a pool with one line, run jobs, come back as themselves, and go in good order.

Each is a process of its own in a folder of its own; all it has of the fleet is the line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.member_ids import id_of_name
from emp_orch.store.redis.keys import Keys
from support.stack.box import Box
from support.stack.stack import Stack, until

POOL = "renders"
# As it is by default; and what a busy host may take beyond it.
LEASE_S = 30.0
ROOM_S = 30.0
PROGRAMS = ("supervisord", "agent", "simulation", "redis-worker-gpu0")


class Lab:
    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "fleet")
        self.boxes = [Box(folder / name, pool=POOL) for name in ("one", "two")]
        config = yaml.safe_load(self.stack.file.read_text())
        slow = [
            sys.executable,
            "-m",
            "emp_orch",
            "simulate",
            "--port",
            "${port}",
            "--dir",
            "pictures",
            "--steps",
            "10000",
        ]
        config["services"]["simulation"].pop("builtin")
        config["services"]["simulation"] |= {"command": slow, "connector": "simulation"}
        config["machines"] = {"here": {"num_gpus": 0, "services": []}}
        config["pools"] = {POOL: {"size": "0..3", "num_gpus": 1, "services": ["simulation"]}}
        self.stack.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def line(self, *options: str) -> str:
        done = self.stack.run("pool", "join", POOL, "--plain", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def members(self) -> dict[str, Any]:
        with redis.Redis.from_url(self.stack.redis_url, decode_responses=True) as r:
            found: Any = r.hgetall(Keys("").members("test"))
        return {i: json.loads(text) for i, text in found.items()}

    def state_of(self, member: str) -> str:
        return str(self.members().get(member, {}).get("state", ""))

    def joined(self, box: Box, *programs: str, line: str = "", **environ: str) -> str:
        """Start `box`, and wait until its programs run; the id that it has."""
        box.start(line or self.line(), **environ)
        names = programs or PROGRAMS
        found = until(f"{box.folder.name} runs", lambda: box.outcome(*names), shown=lambda: box.said()[-4_000:])
        assert found == "runs", box.said()[-4_000:]
        kept: str = json.loads((box.machine / "join.json").read_bytes())["answer"]["machine_id"]
        return kept

    def there(self) -> set[str]:
        """The members that did not say good-bye."""
        return {m for m, said in self.members().items() if said["state"] == "in"}

    def left(self, member: str) -> bool:
        """Whether it went in good order: the leader forgets it at once, and the journal keeps how it went."""
        state = self.state_of(member)
        told = "" if state else self.stack.ok("journal")
        return state == "left" or any(member in line and "left in good order" in line for line in told.splitlines())

    def job(self, job: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.stack.ok("jobs", "show", job, "--json"))
        return said


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("pool"))
    yield lab
    for box in lab.boxes:
        box.clear()
    lab.stack.run("down")
    left = lab.stack.leftovers()
    assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def test_two_boxes_join_with_one_line_and_run_jobs(lab: Lab) -> None:
    lab.stack.ok("apply", "-y")
    one = lab.joined(lab.boxes[0])
    # On one host: the second finds the first's service where its own would be.
    two = lab.joined(lab.boxes[1], "supervisord", "agent")
    assert one != two
    assert {m: d["state"] for m, d in lab.members().items()} == {one: "in", two: "in"}
    done = lab.stack.run("submit", "simulation", "--id", "first", "--payload", "{}", "--wait")
    assert done.returncode == 0, done.stderr
    assert lab.job("first")["worker_id"].startswith("renders-")
    # People speak of a member as of any machine.
    assert f"{one} redis-worker-gpu0 was restarted" in lab.stack.ok("restart", one, "redis-worker-gpu0")
    refused = lab.stack.run("restart", f"{one}x")
    assert refused.returncode == 2 and f"there is no machine '{one}x'" in refused.stderr, refused.stderr
    lab.boxes[1].stop()
    assert lab.state_of(one) == "in" and lab.left(two)


def test_a_box_that_starts_again_is_the_same_member_also_while_the_api_is_away(lab: Lab) -> None:
    box = lab.boxes[0]
    before = lab.there()
    box.kill()
    again = lab.joined(box, line="emp machine --pool renders --stay")
    assert again in before and lab.there() == before
    box.kill()
    # Nobody listens there: it goes by its last answer.
    away = lab.joined(box, line="EMP_JOIN_URL=http://127.0.0.1:9 EMP_JOIN_TOKEN=x emp machine --pool renders --stay")
    assert away == again


def test_a_box_that_is_told_to_end_leaves_and_its_job_goes_back(lab: Lab) -> None:
    one = lab.boxes[0]
    one.kill()
    gone = lab.joined(one, line=f"{lab.line()} --notice 6s")
    lab.stack.ok("submit", "simulation", "--id", "long", "--payload", '{"steps": 5000}')
    until("it runs", lambda: lab.job("long")["status"] == "in_progress")
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 15
    assert lab.left(gone)
    job = lab.job("long")
    assert job["status"] == "pending", job
    said = lab.stack.ok("journal")
    line = next((t for t in said.splitlines() if "preempted" in t and gone in t and "(SIGTERM)" in t), "")
    assert "1 job went back to where" in line, said + one.said()[-3_000:]
    lab.stack.ok("cancel", "long")


def test_the_job_of_a_box_that_vanished_is_given_back_when_its_lease_ends(lab: Lab) -> None:
    one = lab.boxes[0]
    lost = lab.joined(one)
    lab.stack.ok("submit", "simulation", "--id", "orphan", "--payload", '{"steps": 5000}')
    until("it runs", lambda: lab.job("orphan")["status"] == "in_progress")
    assert lab.job("orphan")["worker_id"].startswith(lost)
    whole = [p.pid for name in PROGRAMS if (p := one.program(name)) is not None]
    assert len(whole) == len(PROGRAMS)
    for pid in whole:
        os.kill(pid, signal.SIGKILL)
    one.ended()
    assert lab.job("orphan")["status"] == "in_progress"  # nobody gave it back
    within_s = LEASE_S + ROOM_S
    until("it waits again", lambda: lab.job("orphan")["status"] == "pending", within_s=within_s)
    assert lab.state_of(lost) == "in"  # it is not forgotten for that
    lab.stack.ok("cancel", "orphan")


def test_a_member_that_is_forgotten_is_shut_out_and_one_at_work_only_by_force(lab: Lab) -> None:
    one = lab.boxes[0]
    mine = lab.joined(one)
    lab.stack.ok("submit", "simulation", "--id", "held", "--payload", '{"steps": 5000}')
    until("it runs", lambda: lab.job("held")["status"] == "in_progress")
    refused = until("its worker says so", lambda: _refused(lab, mine))
    assert f"{mine} is at work on " in refused
    assert mine in lab.members()
    lab.stack.ok("pool", "revoke", POOL)
    said = lab.stack.ok("machine", "forget", mine, "--force")
    assert f"{mine} is forgotten: its token, its login and its keys are void" in said
    assert mine not in lab.members()
    told = [t for t in lab.stack.ok("journal").splitlines() if "member forgotten" in t and mine in t]
    assert "removed; asked by cli" in told[-1], told
    one.kill()
    one.start("emp machine --pool renders --stay")  # by what it kept
    assert one.ended() != 0, one.said()[-3_000:]
    assert mine not in lab.members()
    lab.stack.ok("cancel", "held")


def _refused(lab: Lab, member: str) -> str:
    """What `emp machine forget` says of a member whose job its worker has told of."""
    with redis.Redis.from_url(lab.stack.redis_url, decode_responses=True) as r:
        told: Any = r.hget(Keys("").workers, f"{member}-worker-0")
    if not told or '"busy"' not in told:
        return ""
    done = lab.stack.run("machine", "forget", member)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_who_comes_by_a_name_has_that_names_id(lab: Lab) -> None:
    box = lab.boxes[1]
    named = lab.joined(box, "supervisord", "agent", EMP_JOIN_AS="pod-7")
    assert named == id_of_name(PoolName(POOL), "pod-7")
    box.stop()
    assert lab.left(named)


def test_a_line_that_was_revoked_lets_nobody_in(lab: Lab) -> None:
    line = lab.line()
    lab.stack.ok("pool", "revoke", POOL)
    box = Box(lab.boxes[0].folder.parent / "three", pool=POOL)
    lab.boxes.append(box)
    box.start(line)
    assert box.ended() != 0
    assert "does not let this box of pool renders join" in box.said()
    assert "`emp pool join renders` prints a new line" in box.said()


def test_the_commands_say_what_is_a_pool_and_what_is_none(lab: Lab) -> None:
    for words, said in (
        (("machine", "join", POOL), "renders is a pool"),
        (("machine", "join", "renders-7f3k"), "renders-7f3k is a name of pool renders, whose boxes share one line"),
        (("pool", "join", "here"), "here is a machine, and no pool"),
        (("pool", "join", "other"), "the fleet that was applied has no pool 'other'; pools: renders"),
        (("machine", "revoke", "renders-7f3k"), "renders-7f3k is of pool renders"),
    ):
        done = lab.stack.run(*words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    told = json.loads(lab.stack.ok("pool", "join", POOL, "--json", "--max", "2", "--api", "https://emp.example.com"))
    assert (told["pool"], told["max"], told["api"]) == (POOL, 2, "https://emp.example.com")
    assert told["environment"] == {
        "EMP_POOL": POOL,
        "EMP_JOIN_URL": "https://emp.example.com",
        "EMP_JOIN_TOKEN": told["token"],
    }
    assert told["image"] in told["docker"] and "EMP_POOL=renders" in told["docker"]
