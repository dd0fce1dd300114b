"""A box that emp did not start: it joins with the printed line, is kept right, and is told apart when it is away.

The box is a process of its own in a folder of its own; all it has of the fleet is the line.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from support.stack.box import BOX, Box
from support.stack.stack import Stack, until

SECRET = "s3cret-of-the-box"
PROGRAMS = ("supervisord", "agent", "simulation", "teller", "redis-worker-gpu0")


class Lab:
    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "fleet")
        self.box = Box(folder / "box")
        config = yaml.safe_load(self.stack.file.read_text())
        told = 'printf %s "$TOLD" > told; exec sleep 100000'
        config["reconcile"]["stale_after"] = "4s"  # a test need not wait for longer
        config["services"]["teller"] = {
            "scale": "per_machine",
            "command": ["sh", "-c", told],
            "env": {"TOLD": {"env": "BOX_SECRET"}},
        }
        config["machines"] = {
            "here": {"num_gpus": 0, "services": []},
            BOX: {"runtime": "external", "num_gpus": 1, "services": ["simulation", "teller"]},
        }
        self.stack.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def apply(self, *options: str) -> dict[str, Any]:
        done = self.stack.run("apply", "-y", "--timeout", "60", "--json", *options, BOX_SECRET=SECRET)
        assert done.stdout, f"{done.stderr}{self.stack.log_ends()}"
        outcome: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if outcome["yet_to_join"] else 0), f"{done.stdout}{done.stderr}"
        return outcome

    def words(self, *command: str) -> tuple[int, str]:
        """The exit code of `command`, and the first line that it prints."""
        done = self.stack.run(*command, "--timeout", "60", BOX_SECRET=SECRET)
        return done.returncode, done.stdout.partition("\n")[0]

    def drift(self) -> list[str]:
        found = [item["drift"] for item in self.stack.diff()[1]["drift"]]
        return [d["kind"] for d in found if d["machine_id"] == BOX]

    def until_in_sync(self) -> None:
        try:
            self.stack.until_in_sync()
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.box.said()[-5_000:]}{self.stack.log_ends()}") from None

    def line(self) -> str:
        done = self.stack.run("machine", "join", BOX, "--plain")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("external"))
    yield lab
    lab.box.clear()
    lab.stack.run("down")
    left = lab.stack.leftovers()
    assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def asked(lab: Lab, machine: str, token: str | None) -> tuple[int, str]:
    """Status and error of the API's answer to a join."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{lab.stack.api}/api/machines/{machine}/join", method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)["error"]


def test_apply_waits_for_no_box_and_says_which_is_missing(lab: Lab) -> None:
    assert lab.apply()["yet_to_join"] == [BOX]
    again = lab.apply()
    assert (again["changed"], again["yet_to_join"]) == (False, [BOX])
    assert lab.words("start") == lab.words("apply", "-y"), "one answer, and one exit code"
    assert json.loads(lab.stack.run("start", "--json", BOX_SECRET=SECRET).stdout)["yet_to_join"] == [BOX]
    assert lab.drift() == ["machine-away"]
    told = lab.stack.run("explain", f"machine-away/{BOX}/{BOX}")
    assert f"emp machine join {BOX}" in told.stdout, told.stdout + told.stderr


def test_only_external_machines_of_this_fleet_get_a_line(lab: Lab) -> None:
    for name, why in (("here", "emp starts it itself"), ("nosuch", "external ones: box")):
        done = lab.stack.run("machine", "join", name)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout
        assert why in done.stderr
    told = lab.stack.run("machine", "join", BOX, "--json")
    assert "reached from this host only" in told.stderr
    assert json.loads(told.stdout)["docker"].startswith("docker run ")


def test_the_api_tells_nothing_to_who_has_no_token(lab: Lab) -> None:
    token = json.loads(lab.stack.run("machine", "join", BOX, "--json").stdout)["token"]
    answers = {asked(lab, *given) for given in ((BOX, None), (BOX, "x"), ("nosuch", token), ("here", token))}
    assert answers == {(403, "this token does not let anybody join here")}
    assert asked(lab, BOX, token) == (200, "")


def test_the_box_joins_with_the_line_and_works(lab: Lab) -> None:
    line = lab.line()
    lab.box.start(line)
    lab.until_in_sync()
    done = json.loads(lab.stack.ok("submit", "simulation", "--payload", '{"steps": 1}', "--wait", "--json"))
    assert done["status"] == "completed"
    assert until("what the teller was told", lambda: (lab.box.machine / "told").read_text()) == SECRET
    with redis.Redis.from_url(lab.stack.redis_url, decode_responses=True) as r:
        users = {c["user"] for c in r.client_list()}
        assert f"emp:test:{BOX}" in users
        assert SECRET not in str([r.get(k) for k in r.scan_iter("machine:*:config")])
    kept = lab.box.machine / "join.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    answer = json.loads(kept.read_text())["answer"]
    password = answer["redis_url"].split("@")[0].rpartition(":")[2]
    for hidden in (answer["token"], password, SECRET, line.split()[1].partition("=")[2]):
        assert len(hidden) > 10
        assert hidden not in lab.box.said()
        assert hidden.encode() not in b"".join(p.read_bytes() for p in lab.stack.layout.logs.rglob("*.log"))


def shown(lab: Lab, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.stack.ok("jobs", "show", job, "--json"))
    return found


def refused(box: Box, *line: str) -> str:
    """Start it in vain; what it said of that."""
    before = len(box.log.read_text()) if box.log.exists() else 0
    box.start(*line)
    assert box.ended() == 1, box.said()
    assert not box.pids(*PROGRAMS)
    return box.log.read_text()[before:]


def test_a_second_box_is_refused_while_the_first_lives(lab: Lab, tmp_path: Path) -> None:
    before, line, other = lab.box.pids(*PROGRAMS), lab.line(), Box(tmp_path / "other")
    job = json.loads(lab.stack.ok("submit", "simulation", "--payload", '{"steps": 3000}', "--json"))["id"]
    until("the first is at it", lambda: shown(lab, job)["status"] == "in_progress", shown=lambda: str(shown(lab, job)))
    try:
        told = refused(other, line)
        assert f"box is joined by another box: {platform.node()}, boot {before['supervisord']}-" in told, told
        assert "stop that one, or take another machine's line (`emp machine join`)" in told
        assert "the next is let in 4 s after its last word" in told, "where the first is gone with its folder"
        assert not (other.machine / "join.json").exists(), "it learns neither the way to Redis nor a secret"
        until("its job", lambda: shown(lab, job)["status"] == "completed")
        assert shown(lab, job)["attempts"] == 1
        assert lab.box.pids(*PROGRAMS) == before

        lab.box.kill()
        lab.box.start()  # in its own folder at once, though its last word is fresh
        lab.until_in_sync()

        lab.box.stop()
        until("the second is let in", lambda: _let_in(other, line))
        lab.until_in_sync()
        other.kill()
        told = refused(lab.box)
        assert "is joined by another box" in told, "what it kept of its own time is no way in"
    finally:
        other.clear()
    until("the first is let in, once nothing is heard of the second", lambda: _let_in(lab.box))
    lab.until_in_sync()


def test_a_copy_of_its_folder_is_another_box(lab: Lab, tmp_path: Path) -> None:
    """Copied whole, with its identity and all that it kept of its join; the first lives, and is not disturbed."""
    before, other = lab.box.pids(*PROGRAMS), Box(tmp_path / "copied")
    shutil.copytree(
        lab.box.folder, other.folder, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock")
    )
    shutil.rmtree(other.machine / "run")
    try:
        told = refused(other)
        assert f"box is joined by another box: {platform.node()}, boot {before['supervisord']}-" in told, told
        assert "is a copy of another box's folder" in told
        assert lab.box.pids(*PROGRAMS) == before
        assert "machine-conflict" not in lab.drift()
        lab.box.stop()
        until("the copy is let in", lambda: _let_in(other))
        lab.until_in_sync()
        other.stop()
    finally:
        other.clear()
    until("the first is let in, once nothing is heard of the copy", lambda: _let_in(lab.box))
    lab.until_in_sync()


def _let_in(box: Box, *line: str) -> bool:
    """Start it; whether it runs, where False says that it was refused."""
    box.start(*line)
    return until("it runs, or ends", lambda: box.outcome(*PROGRAMS[:2])) == "runs"


def test_a_redis_that_lost_its_users_gets_them_again_and_nothing_restarts(lab: Lab) -> None:
    before = lab.box.pids(*PROGRAMS)
    assert len(before) == len(PROGRAMS)
    server = lab.stack.control("redis")
    os.kill(server.pid, signal.SIGKILL)
    until("another Redis", lambda: lab.stack.control("redis").pid != server.pid)

    def user_is_back() -> bool:
        with suppress(redis.ConnectionError), redis.Redis.from_url(lab.stack.redis_url) as r:
            return r.acl_getuser(f"emp:test:{BOX}") is not None
        return False

    until("its user again", user_is_back)
    lab.until_in_sync()
    assert lab.box.pids(*PROGRAMS) == before


def test_its_configuration_changes_in_place(lab: Lab) -> None:
    before = lab.box.pids("supervisord", "simulation", "redis-worker-gpu0")
    text = lab.stack.file.read_text()
    lab.stack.file.write_text(text.replace("num_gpus: 1", "num_gpus: 2"))
    assert lab.apply()["yet_to_join"] == []
    assert lab.box.program("redis-worker-gpu1") is not None
    assert lab.box.pids("supervisord", "simulation", "redis-worker-gpu0") == before


def test_a_killed_supervisord_needs_a_person_and_starts_from_what_it_kept(lab: Lab) -> None:
    former = lab.box.pids("simulation")
    lab.box.kill()
    until("drift that says so", lambda: lab.drift() == ["machine-away"])
    told = lab.stack.run("restart", BOX)
    assert told.returncode == 1, told.stdout
    assert f"emp machine join {BOX}" in told.stderr
    lab.box.start()  # without a token: that of the line is of no use any more once it expired
    lab.until_in_sync()
    assert lab.box.pids("simulation")["simulation"] != former["simulation"]


def test_it_starts_from_its_disk_with_api_and_redis_away(lab: Lab) -> None:
    former = lab.box.pids("simulation", "teller")
    lab.box.kill()
    lab.stack.ok("down")
    lab.box.start()

    def its_programs() -> dict[str, int] | None:
        found = lab.box.pids(*former)
        return found if len(found) == len(former) and not set(found.values()) & set(former.values()) else None

    before = until("its programs", its_programs)
    lab.apply()
    lab.until_in_sync()
    assert lab.box.pids("simulation", "teller") == before


def test_a_revoked_box_is_shut_out_and_a_new_line_lets_it_in(lab: Lab) -> None:
    old = lab.line()
    lab.stack.ok("machine", "revoke", BOX)
    until("drift that says so", lambda: lab.drift() == ["machine-away"])
    lab.box.kill()
    until("the doctor says so", lambda: f"`emp machine join {BOX}` prints the line" in lab.stack.run("doctor").stdout)
    lab.box.start(old)
    assert lab.box.ended() == 1
    assert "does not let box join" in lab.box.log.read_text()
    lab.box.start(lab.line())
    lab.until_in_sync()


def test_pruned_it_is_forgotten_and_what_it_has_is_void(lab: Lab) -> None:
    config = yaml.safe_load(lab.stack.file.read_text())
    del config["machines"][BOX]
    lab.stack.file.write_text(yaml.safe_dump(config, sort_keys=False))
    lab.apply("--prune")
    lab.stack.until_in_sync()
    machines, workers = lab.stack.redis_reports()
    assert (machines, workers) == (["here"], [])
    token = json.loads((lab.box.machine / "join.json").read_text())["answer"]["token"]
    assert asked(lab, BOX, token)[0] == 403
    with redis.Redis.from_url(lab.stack.redis_url) as r:
        assert r.acl_getuser(f"emp:test:{BOX}") is None
