"""Who gets into the fleet's Redis, and how far: another user of this host, a machine, a service; on a real stack."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from msgspec import structs
from redis import exceptions as rexc

from emp_orch import settings as settings_files
from emp_orch.control.plane.embedded_login import kept_password
from emp_orch.redis_users import user_of
from emp_orch.store.acl.machine_scripts import own_texts
from emp_orch.store.acl.users import grant
from emp_orch.store.redis.client import connected
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import digest_of
from emp_orch.urls import with_login, without_login
from support.redis.server import running_server
from support.stack.stack import MACHINE, Stack, until

USER = f"emp:test:{MACHINE}"
WORKERS = (f"{MACHINE}-worker-0", f"{MACHINE}-worker-1")
# One that has written cannot be killed.
LOOP = "redis.call('ZADD', KEYS[1], 1, 'x') while true do end"
# Begins what the settings on the disk say, as they are.
START = """
import asyncio, pathlib, sys
from emp_orch.control.plane.supervisord_plane import ControlPlane
from emp_orch.layout import Layout
asyncio.run(ControlPlane(Layout(pathlib.Path(sys.argv[1]))).start())
"""
# What another user of this host does: he needs no more than a socket.
ATTACK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as s:
    s.sendall(b"SET machine:box:config forged\\r\\n")
    print(s.recv(200).decode().strip())
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("logins"))
    try:
        made.up()
        yield made
    finally:
        made.run("down")
        left = made.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def as_nobody(stack: Stack) -> str:
    """What Redis says to another user of this host who writes a machine's configuration."""
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*words, "/usr/bin/env", "python3", "-c", ATTACK, str(stack.ports["redis"])],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=30,
    )
    return done.stdout + done.stderr


def is_idle(stack: Stack) -> bool:
    """Whether all workers are; not while Redis is away."""
    try:
        with redis.Redis.from_url(stack.redis_url, decode_responses=True) as r:
            reports = r.hgetall("workers")
    except rexc.RedisError:
        return False
    return sorted(w for w, text in reports.items() if json.loads(text)["status"] == "idle") == sorted(WORKERS)


def does_a_job(stack: Stack) -> None:
    until("Redis is back", lambda: stack.run("jobs").returncode == 0)
    done = json.loads(stack.ok("submit", "simulation", "--wait", "--json"))
    assert done["status"] == "completed", done


def environ(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return dict(v.split("=", 1) for v in text.split("\0") if "=" in v)


def machines_login(stack: Stack, machine: str = MACHINE) -> str:
    """The way to Redis that a machine's own files hold: all that a node in its ComfyUI can read."""
    file = stack.layout.machine(machine) / "hub_redis_url"
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text().strip()


# -- the embedded Redis


def test_another_user_of_this_host_gets_no_word_in(stack: Stack) -> None:
    assert as_nobody(stack).startswith("-NOAUTH")
    with redis.Redis.from_url(stack.redis_url) as r:
        assert r.get("machine:box:config") is None
        assert r.config_get("protected-mode") == {"protected-mode": "yes"}


def test_the_password_is_nowhere_but_in_files_of_the_fleets_user(stack: Stack) -> None:
    password = kept_password(stack.layout)
    assert len(password) >= 32
    assert (stack.layout.redis_password.stat().st_mode & 0o777, stack.layout.redis_password.read_text()) == (
        0o600,
        f"{password}\n",
    )
    said = [stack.run(*argv) for argv in (("diff", "--json"), ("doctor",), ("status", "--json"), ("render",))]
    assert password not in "".join(f"{one.stdout}{one.stderr}" for one in said)
    assert not stack.running(password)
    holding = [p for p in stack.root.rglob("*") if p.is_file() and password.encode() in p.read_bytes()]
    assert all(p.stat().st_mode & 0o077 == 0 for p in holding)
    assert not [p for p in holding if p.is_relative_to(stack.layout.logs)]
    below = {str(p.relative_to(stack.layout.state)) for p in holding}
    assert below <= {"control/redis.password", "control/settings.json", "redis/redis.conf"}


def test_it_is_the_same_after_the_settings_and_its_file_are_lost(stack: Stack) -> None:
    password = kept_password(stack.layout)
    stack.layout.settings.unlink()
    stack.layout.redis_password.unlink()
    stack.up()
    assert kept_password(stack.layout) == password
    assert stack.layout.redis_password.read_text() == f"{password}\n"


# -- a machine's login


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "machine:other:config", "x"),
        ("XADD", "machine:other:commands", "*", "command", "{}"),
        ("XRANGE", "machine:other:commands", "-", "+"),
        ("GET", "fleet:test:generation"),
        ("SET", "fleet:test:generation", "9"),
        ("GET", "fleet:test:spec:1"),
        ("SET", "fleet:test:leader", "me"),
        ("HGETALL", "fleet:test:overrides"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "requirepass"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("ACL", "SETUSER", "default", "nopass"),
        ("SELECT", "1"),
        ("EVAL", LOOP, "1", "workers:seen"),
        ("EVAL_RO", "while true do end", "0"),
        ("SCRIPT", "LOAD", LOOP),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() while true do end end)"),
        ("FUNCTION", "FLUSH"),
        ("FCALL", "x", "0"),
    ],
)
def test_a_machines_login_commands_nobody(stack: Stack, words: tuple[str, ...]) -> None:
    url = machines_login(stack)
    assert kept_password(stack.layout) not in url
    with redis.Redis.from_url(url) as r:
        assert r.ping()
        with pytest.raises(rexc.ResponseError, match=r"(?i)perm|acl"):
            r.execute_command(*words)


def test_jobs_run_with_it_and_it_asks_for_nothing_else(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as r:
        r.execute_command("ACL", "LOG", "RESET")
        does_a_job(stack)
        users = {
            one["name"]: one["user"] for one in r.client_list() if one["name"].startswith(("emp:agent", "emp:wor"))
        }
        assert users == dict.fromkeys((f"emp:agent:{MACHINE}", *(f"emp:worker:{w}" for w in WORKERS)), USER)
        assert not [e for e in r.acl_log() if e["object"] != "client|setinfo"]


def test_scripts_that_redis_lost_come_back_and_no_job_is_lost(stack: Stack) -> None:
    """Somebody flushed them; as after a restart, or on another primary."""
    before = {name: stack.program(name) for name in ("supervisord", "agent", "redis-worker-gpu0")}
    with (
        redis.Redis.from_url(stack.redis_url, decode_responses=True) as r,
        redis.Redis.from_url(machines_login(stack), decode_responses=True) as own,
    ):
        jobs = [
            json.loads(stack.ok("submit", "simulation", "--payload", '{"prompt": "a fox", "steps": 60}', "--json"))[
                "id"
            ]
            for _ in range(4)
        ]
        for _ in range(3):
            r.script_flush()
            until("they are there again", lambda: known_scripts(r, own))
        until(
            "all are done", lambda: done_of(stack, jobs) == dict.fromkeys(jobs, ("completed", 1)), shown=stack.log_ends
        )
        r.flushall()
        does_a_job(stack)
        r.script_flush()
        r.flushall()
        does_a_job(stack)
    until("status says so", lambda: stack.run("status").returncode == 0)
    assert {name: stack.program(name) for name in before} == before, "nothing had to start again"
    assert "! scripts" not in stack.ok("doctor")


def known_scripts(r: redis.Redis, own: redis.Redis) -> bool:
    """Whether Redis knows what a machine's workers and agent send; as `own`, none of it is refused."""
    assert own.ping()
    return all(r.script_exists(*map(digest_of, own_texts(Keys("")))))


def done_of(stack: Stack, jobs: list[str]) -> dict[str, tuple[str, int]]:
    found = json.loads(stack.ok("jobs", "list", "--json"))["jobs"]
    return {job["id"]: (job["status"], job["attempts"]) for job in found if job["id"] in jobs}


def test_a_loop_within_its_keys_stops_redis_beyond_script_kill(tmp_path: Path) -> None:
    """What the right to send scripts is worth, and so who has it. Shown on a server of its own."""
    with running_server("redis", tmp_path / "data") as server, redis.Redis.from_url(server.url) as r:
        keys = Keys("")
        for sends in (False, True):
            _let_in(server.url, keys, sends=sends)
            with redis.Redis.from_url(with_login(server.url, "emp:f:m", "pw")) as own:
                own.connection_pool.connection_kwargs["socket_timeout"] = 2
                if not sends:
                    with pytest.raises(rexc.NoPermissionError):
                        own.eval(LOOP, 1, keys.workers)
                    assert r.ping()
                    continue
                with pytest.raises(rexc.TimeoutError):
                    own.eval(LOOP, 1, f"{keys.workers}:seen")
                until("it is busy for others", lambda: _busy(r))
                with pytest.raises(rexc.ResponseError, match="UNKILLABLE"):
                    r.script_kill()


def _let_in(url: str, keys: Keys, *, sends: bool) -> None:
    async def grant_it() -> bool:
        async with connected(url) as r:
            return await grant(r, keys, "f", "m", "pw", sends=sends)

    assert asyncio.run(grant_it())


def _busy(r: redis.Redis) -> bool:
    try:
        r.ping()
    except rexc.ResponseError as e:
        return "BUSY" in str(e) or "busy" in str(e)
    return False


def test_no_service_holds_a_login(stack: Stack) -> None:
    secrets = [kept_password(stack.layout), str(urlsplit(machines_login(stack)).password)]
    programs = ["supervisord", "agent", "simulation", "comfyui-gpu0", "comfyui-gpu1"]
    for who in (stack.program(name) for name in programs):
        text = Path(f"/proc/{who.pid}/environ").read_text(errors="replace")
        assert not any(secret in text for secret in secrets), text
    service = environ(stack.program("simulation").pid)
    assert service["HUB_REDIS_URL"] == service["REDIS_URL"] == stack.redis_without_login
    assert "HUB_REDIS_URL_FILE" not in service
    worker = environ(stack.program("redis-worker-gpu0").pid)
    assert worker["HUB_REDIS_URL"] == worker["REDIS_URL"] == machines_login(stack)
    for part in ("supervisord", "redis", "api", "monitor", "reconcile"):
        text = Path(f"/proc/{stack.control(part).pid}/environ").read_text(errors="replace")
        assert not any(secret in text for secret in secrets), part


def test_a_redis_that_is_killed_gets_its_users_back(stack: Stack) -> None:
    before = {name: stack.program(name) for name in ("supervisord", "agent", "redis-worker-gpu0")}
    was = stack.control("redis")
    os.kill(was.pid, signal.SIGKILL)
    until("Redis is back", lambda: stack.control("redis") != was)
    does_a_job(stack)
    until("status says so", lambda: stack.run("status").returncode == 0)
    assert {name: stack.program(name) for name in before} == before, "nothing had to start again"
    assert stack.run("doctor").returncode == 0


def test_a_user_that_somebody_removed_is_made_again(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as r:
        assert r.acl_deluser(USER) == 1
        until("it is there again", lambda: r.acl_getuser(USER))
    does_a_job(stack)


def test_the_user_of_a_machine_that_is_gone_is_withdrawn(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    text = stack.file.read_text()
    spare = "  spare: {runtime: process, num_gpus: 0, services: []}\n"
    stack.file.write_text(text.replace("\nreconcile:", f"\n{spare}reconcile:", 1))
    try:
        stack.up(NUM_GPUS="1")
        with redis.Redis.from_url(stack.redis_url, decode_responses=True) as r:
            assert sorted(r.acl_users()) == ["default", USER, "emp:test:spare"]
            stack.file.write_text(text)
            stack.ok("apply", "-y", "--prune", NUM_GPUS="1")
            until("its user is gone", lambda: sorted(r.acl_users()) == ["default", USER])
    finally:
        stack.run("down")
        assert not stack.leftovers()


# -- a Redis that is somebody's


@pytest.mark.parametrize(("prefix", "database"), [("", 0), ("mine:", 3)])
def test_each_machine_has_a_user_there_and_none_is_left(tmp_path: Path, prefix: str, database: int) -> None:
    with running_server("redis", tmp_path / "data") as server, redis.Redis.from_url(server.url) as r:
        r.execute_command("ACL", "SETUSER", "boss", "on", ">boss", "~*", "&*", "+@all")
        stack = Stack(tmp_path / "fleet")
        url = f"{with_login(server.url, 'boss', 'boss').removesuffix('/0')}/{database}"
        own = stack.file.read_text().replace("url: embedded", f"url: {url}\n  prefix: '{prefix}'", 1)
        stack.file.write_text(own)
        user = user_of("test", MACHINE, prefix=prefix, database=database)
        try:
            stack.up(NUM_GPUS="1")
            assert sorted(r.acl_users()) == ["boss", "default", user]
            does_a_job(stack)
            assert urlsplit(machines_login(stack)).username == user.replace(":", "%3A").replace("@", "%40")
            r.acl_deluser(user)  # as a restart without an ACL file does
            until("it is there again", lambda: r.acl_getuser(user))
            does_a_job(stack)
        finally:
            stack.run("down")
            assert not stack.leftovers()
        assert sorted(r.acl_users()) == ["boss", "default"]


def test_where_the_login_may_not_make_users_it_is_the_machines_too_and_that_is_said(tmp_path: Path) -> None:
    with running_server("redis", tmp_path / "data") as server, redis.Redis.from_url(server.url) as r:
        r.execute_command("ACL", "SETUSER", "poor", "on", ">poor", "~*", "&*", "+@all", "-acl")
        stack = Stack(tmp_path / "fleet")
        url = with_login(server.url, "poor", "poor")
        stack.file.write_text(stack.file.read_text().replace("url: embedded", f"url: {url}", 1))
        said = "machines use the fleet's own login at Redis: +acl|setuser +acl|deluser +acl|users"
        try:
            done = stack.run("apply", "-y", "--timeout", "120", NUM_GPUS="1")
            assert done.returncode == 0 and said in done.stderr, done.stderr
            does_a_job(stack)
            assert machines_login(stack) == url
            doctor = stack.run("doctor")
            assert doctor.returncode == 0 and said in doctor.stdout, doctor.stdout
            assert "poor" not in environ(stack.program("simulation").pid)["HUB_REDIS_URL"]
        finally:
            stack.run("down")
            assert not stack.leftovers()


# -- an upgrade


def test_a_fleet_that_ran_without_gets_one_and_loses_no_job(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    try:
        stack.up()
        stack.ok("down")
        _as_an_older_emp_left_it(stack)
        subprocess.run([sys.executable, "-c", START, str(stack.root)], check=True, timeout=60)
        until("workers are idle", lambda: is_idle(stack), shown=stack.log_ends)
        assert as_nobody(stack) == "+OK\n", "nothing is shown by a Redis that was shut before"
        jobs = [json.loads(stack.ok("submit", "simulation", "--json"))["id"] for _ in range(6)]
        before = stack.control("redis")
        stack.up()
        assert stack.control("redis") == before
        assert as_nobody(stack).startswith("-NOAUTH")
        until("all are done", lambda: _statuses(stack) == dict.fromkeys(jobs, "completed"), shown=stack.log_ends)
        # Whatever connects anew has a login.
        before = stack.control("redis")
        os.kill(before.pid, 9)
        until("Redis is back", lambda: stack.control("redis") != before)
        does_a_job(stack)
        stack.until_in_sync()
        assert as_nobody(stack).startswith("-NOAUTH")
    finally:
        stack.run("down")
        assert not stack.leftovers()


def _as_an_older_emp_left_it(stack: Stack) -> None:
    layout = stack.layout
    known = settings_files.load(layout)
    bare = {name: without_login(getattr(known, name)) for name in ("redis_url", "machine_redis_url")}
    settings_files.save(layout, structs.replace(known, **bare, container_redis_url=""))
    layout.redis_password.unlink()
    (layout.redis / "redis.conf").unlink()


def _statuses(stack: Stack) -> dict[str, str]:
    return {job["id"]: job["status"] for job in json.loads(stack.ok("jobs", "list", "--json"))["jobs"]}
