"""What the doctor finds in given facts, and how it says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from emp_orch.cli.commands.doctor import as_document, text
from emp_orch.control.doctor.checks.machines import program_problem
from emp_orch.control.doctor.examine import CHECKS, examine
from emp_orch.control.doctor.facts.engines import EngineFacts
from emp_orch.control.doctor.facts.gather import Answer, Facts, gather
from emp_orch.control.doctor.facts.host import PathFacts
from emp_orch.control.doctor.facts.logs import last_line
from emp_orch.control.doctor.facts.redis import GateRefused, RedisFacts
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Finding, Group, Level
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import ProgramEnd, ProgramReport, ProgramState
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.policy.holds import Hold
from emp_orch.host.ports import Holder
from emp_orch.layout import Layout
from emp_orch.runtimes.process.supervisor import ProcessInfo
from emp_orch.settings import Listen, Settings
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.status import BreakerStatus, RolloutStatus
from support.fleet.differences import difference, drift
from support.fleet.fleets import COMFYUI, NOW_MS, fleet, look, one, report, wish

SETTINGS = Settings(
    fleet="basic",
    redis_url="redis://:hush@127.0.0.1:6390/0",
    machine_redis_url="redis://:hush@127.0.0.1:6390/0",
    embedded=True,
    redis_port=6390,
    prefix="",
    artifacts="file:///srv/artifacts",
    api=Listen(host="127.0.0.1", port=3390),
    monitor=Listen(host="127.0.0.1", port=3391),
)
INFO = {
    "redis_version": "7.2.4",
    "run_id": "a",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "maxmemory": 0,
    "used_memory": 10,
    "maxmemory_policy": "noeviction",
}


@pytest.fixture
async def nothing(tmp_path: Path) -> Facts:
    """The facts of a folder in which nothing was ever applied."""
    return await gather(Layout(tmp_path), {})


def redis_facts(**info: Any) -> RedisFacts:
    return RedisFacts(info={**INFO, **info}, offset_ms=0, round_trip_ms=0.2, subscribers=1, boots={}, oldest_event_ms=0)


def findings(facts: Facts, check: str, **changes: Any) -> list[tuple[str, str, str]]:
    """(level, what, fix) of one check."""
    changed = msgspec.structs.replace(facts, **changes)
    return [(str(f.level), f.what, f.fix) for f in examine(changed) if f.check == check]


def levels(facts: Facts, check: str, **changes: Any) -> list[str]:
    return [level for level, _, _ in findings(facts, check, **changes)]


def test_what_a_box_was_refused_at_the_gate_is_told(nothing: Facts) -> None:
    found = msgspec.structs.replace(
        redis_facts(), gate_refused={MachineId("renders-7f3k"): GateRefused(count=7, last="KEYS it is no command")}
    )
    ((level, what, fix),) = findings(nothing, "gate", redis=found)
    assert level == "warn" and what == (
        "renders-7f3k was refused 7 times within an hour, the last: KEYS it is no command"
    )
    assert "emp machine forget renders-7f3k" in fix
    assert findings(nothing, "gate", redis=redis_facts()) == []


def test_checks_have_names_of_their_own() -> None:
    names = [c.name for c in CHECKS]
    assert len(names) == len(set(names))
    assert list(dict.fromkeys(c.group for c in CHECKS)) == list(Group)


def test_a_folder_without_a_fleet(nothing: Facts) -> None:
    found = examine(nothing)
    assert not [f for f in found if f.level is Level.FAIL]
    shown = click.unstyle(text(found, quiet=True))
    assert "! there is no emp.yaml in " in shown
    untold = "supervisord, parts, reconciler, artifacts, overrides, breaker, rollout, quarantine"
    assert f"? cannot tell ({untold}): no fleet was applied in " in shown
    assert "? cannot tell (api, api-ready, monitor): see above" in shown


@pytest.mark.parametrize(
    ("package", "told"),
    [
        (WorkerPackage(digest="a" * 64), []),
        (WorkerPackage(digest="b" * 64), ["what the worker package bbbbbbbbbbbb sends is not known here"]),
        (None, ["what the worker package of an older emp sends is not known here"]),
    ],
)
def test_machines_that_may_send_scripts_are_told(
    nothing: Facts, package: WorkerPackage | None, told: list[str]
) -> None:
    generation = Generation(number=1, at_ms=0, fleet=fleet([]), digest="", package=package)
    said = findings(nothing, "scripts", settings=SETTINGS, generation=generation, scripted=frozenset({"a" * 64}))
    assert [what.rpartition(": ")[2] for level, what, _ in said if level == "warn"] == told
    assert bool(told) or [level for level, _, _ in said] == ["ok"]


REDIS: list[tuple[str, dict[str, Any], str, str]] = [
    ("redis-version", {"redis_version": "6.0.16"}, "fail", "Redis 6.0.16 is too old, 6.2 is needed"),
    ("redis-version", {"redis_version": "6.2.0"}, "ok", "it speaks as Redis 6.2.0, 6.2 is needed"),
    (
        "persistence",
        {"aof_last_write_status": "err"},
        "fail",
        "the last write of Redis' append-only file failed: jobs may be lost",
    ),
    (
        "persistence",
        {"aof_enabled": 0},
        "warn",
        "Redis has no append-only file: a crash loses what came after its last snapshot",
    ),
    (
        "persistence",
        {"aof_enabled": 0, "rdb_last_bgsave_status": "err"},
        "fail",
        "Redis' last snapshot failed: jobs may be lost",
    ),
    (
        "memory",
        {"maxmemory": 100, "maxmemory_policy": "allkeys-lru", "evicted_keys": 33},
        "fail",
        "Redis throws jobs and reports away when its memory is full (maxmemory-policy allkeys-lru); "
        "it evicted 33 keys since it started",
    ),
    ("memory", {"maxmemory": 1024**2, "used_memory": 1024**2}, "fail", "Redis uses 100 % of its memory (1 MiB)"),
    ("memory", {"maxmemory": 1024**2, "used_memory": 1_000_000}, "warn", "Redis uses 95 % of its memory (1 MiB)"),
    (
        "connections",
        {"connected_clients": 19, "maxclients": 20},
        "warn",
        "Redis has 19 of at most 20 connections (maxclients): the next ones are refused",
    ),
    ("connections", {"connected_clients": 17, "maxclients": 20}, "ok", "17 of 20 connections are in use"),
    ("memory", {"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, "ok", "it never evicts, and has memory left"),
]


@pytest.mark.parametrize(
    ("together", "level", "what"),
    [
        ("", "ok", "services of 1 container are kept apart from its secrets"),
        (
            "kernel 5.10.0 has no Landlock, or a seccomp profile hides it",
            "warn",
            "services of m can read its secrets and change its programs: "
            "kernel 5.10.0 has no Landlock, or a seccomp profile hides it",
        ),
    ],
)
def test_whether_services_of_a_container_are_apart(nothing: Facts, together: str, level: str, what: str) -> None:
    m = one([COMFYUI], num_gpus=1, runtime=RuntimeKind.COMPOSE)
    observed = look(m, machines={m.id: report(m, together=together)})
    found = msgspec.structs.replace(difference(), desired=wish(m), observed=observed)
    said = findings(nothing, "services-apart", difference=found)
    assert [f[:2] for f in said] == [(level, what)]


@pytest.mark.parametrize(("check", "info", "level", "what"), REDIS)
def test_redis(nothing: Facts, check: str, info: dict[str, Any], level: str, what: str) -> None:
    found = findings(nothing, check, settings=SETTINGS, redis=redis_facts(**info))
    assert [f[:2] for f in found] == [(level, what)]


def test_redis_clock_and_subscribers(nothing: Facts) -> None:
    late = msgspec.structs.replace(redis_facts(), offset_ms=-3_500, subscribers=0)
    assert findings(nothing, "clock", settings=SETTINGS, redis=late)[0][:2] == (
        "warn",
        "the clock of Redis is 3.5 s behind this host's: times in logs do not match",
    )
    assert findings(nothing, "subscribers", settings=SETTINGS, redis=late) == [
        ("fail", "nobody is subscribed to machine:startup:events", "the API subscribes to it: emp apply")
    ]


def test_machines_that_use_another_redis(nothing: Facts) -> None:
    other = msgspec.structs.replace(SETTINGS, machine_redis_url="redis://:hush@10.0.0.9:6379/0")
    away = Unknown(reason="Redis at redis://:***@10.0.0.9:6379/0 does not answer")
    facts = {"settings": other, "redis": redis_facts()}
    assert levels(nothing, "redis-from-machines", machine_redis="a", **facts) == ["ok"]
    assert levels(nothing, "redis-from-machines", machine_redis="b", **facts) == ["fail"]
    assert levels(nothing, "redis-from-machines", machine_redis=away, **facts) == ["fail"]
    # The same address is the same Redis: its trouble is said once.
    gone = Unknown(reason="Redis does not answer")
    assert levels(nothing, "redis-from-machines", settings=SETTINGS, redis=gone, machine_redis=gone) == ["unknown"]


def info(name: str, state: str, pid: int = 0) -> ProcessInfo:
    return ProcessInfo(name=name, group=name, statename=state, start=0, stop=0, exitstatus=0, pid=pid, spawnerr="")


def test_ports_belong_to_our_own_processes(nothing: Facts) -> None:
    parts = [info("api", "RUNNING", 50), info("monitor", "RUNNING", 51), info("redis", "RUNNING", 52)]
    holders = {
        3390: Holder(pid=77, group=77, command="nc -l 3390"),
        3391: Holder(pid=60, group=51, command="a child of the monitor"),
        6390: Holder(pid=0, group=0, command=""),
    }
    found = findings(nothing, "ports", settings=SETTINGS, parts=parts, holders=holders)
    assert found == [
        (
            "fail",
            "port 3390 of api is taken by a process that is not ours: nc -l 3390 (pid 77)",
            "stop it, or set another api.port in emp.yaml and run emp apply",
        ),
        (
            "warn",
            "port 6390 of redis is held by a process of another user",
            "run emp doctor as that user, or choose another port in emp.yaml",
        ),
    ]
    assert findings(nothing, "ports", settings=SETTINGS, parts=parts, holders={})[0][1] == (
        "api runs (pid 50), but nobody listens on port 3390"
    )


def api_answer(**data: Any) -> Answer:
    from emp_orch import __version__

    known = {"version": __version__, "fleet": "basic", "redis": True}
    return Answer(status=200, document={"data": {**known, **data}})


def test_the_api_and_its_impostors(nothing: Facts) -> None:
    def what(answer: Answer | Unknown) -> list[str]:
        return [w for _, w, _ in findings(nothing, "api", settings=SETTINGS, api_health=answer)]

    assert what(api_answer()) == ["the API answers at http://127.0.0.1:3390"]
    assert what(api_answer(redis=False)) == ["the API runs, but Redis does not answer it"]
    assert what(api_answer(fleet="other")) == ["the API on this port serves fleet 'other', not 'basic'"]
    assert what(api_answer(version="0.0.1"))[0].startswith("the API runs emp 0.0.1, this is emp ")
    assert what(Answer(status=404, document={})) == ["what answers there is not the API of emp (HTTP 404)"]
    assert what(Unknown(reason="refused")) == ["the API does not answer: refused"]


def test_disk_and_folders(nothing: Facts) -> None:
    assert levels(nothing, "disk", free={"state": 100 * 1024**2, "logs": 1024**3}) == ["fail", "warn"]
    assert levels(nothing, "disk", free={"state": 9 * 1024**3, "logs": 9 * 1024**3}) == ["ok"]
    secret = PathFacts(path="/f/secrets.json", exists=True, mine=True, writable=True, mode=0o644, owner=0)
    folder = msgspec.structs.replace(nothing.folder, private=(secret,))
    assert findings(nothing, "folders", folder=folder) == [
        ("fail", "may hold passwords, and others may read it (mode 0644)", "chmod 600 /f/secrets.json")
    ]
    foreign = PathFacts(path="/f/.emp", exists=True, mine=False, writable=False, mode=0o700, owner=1234)
    folder = msgspec.structs.replace(nothing.folder, state=foreign)
    assert findings(nothing, "folders", folder=folder)[0][:2] == (
        "fail",
        "cannot be written by this user (its owner is uid 1234)",
    )


def test_the_artifact_store(nothing: Facts) -> None:
    assert levels(nothing, "artifacts") == ["unknown"]
    assert findings(nothing, "artifacts", settings=SETTINGS, artifacts=None) == [
        ("ok", "outputs can be saved to file:///srv/artifacts", "")
    ]
    full = Unknown(reason="the artifact store does not work: no space left in file:///srv/artifacts")
    ((level, what, _),) = findings(nothing, "artifacts", settings=SETTINGS, artifacts=full)
    assert (level, what) == ("fail", full.reason)


async def test_a_bad_emp_yaml_is_shown_as_validate_shows_it(tmp_path: Path) -> None:
    (tmp_path / "emp.yaml").write_text("version: 1\nname: x\nmachine: {}\n")
    found = [f for f in examine(await gather(Layout(tmp_path), os.environ)) if f.check == "emp-yaml"]
    assert [f.level for f in found] == [Level.FAIL]
    assert "emp.yaml:3:1" in found[0].what


async def test_damaged_files_are_findings_not_crashes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    layout.settings.write_text("{]")
    layout.generation.write_text("{]")
    layout.machine("box").mkdir(parents=True)
    found = examine(await gather(layout, {}))
    assert any(f.check == "applied" and f.level is Level.FAIL for f in found)
    assert any(f.level is Level.UNKNOWN and "is damaged" in f.what for f in found)


def test_text_of_findings() -> None:
    def finding(level: Level, what: str, *, check: str = "a", where: str = "", fix: str = "") -> Finding:
        return Finding(check=check, group=Group.PLANE, level=level, what=what, where=where, fix=fix)

    found = [
        finding(Level.OK, "it runs"),
        finding(Level.FAIL, "api is FATAL\nsecond line", where="/logs/api.log", fix="emp logs api", check="b"),
        finding(Level.WARN, "port 80 is odd", where="port 80", fix="choose another", check="c"),
        finding(Level.UNKNOWN, "Redis is away", check="d"),
        finding(Level.UNKNOWN, "Redis is away", check="e"),
        *(finding(Level.FAIL, f"p{i} is STOPPED", check="f") for i in range(12)),
    ]
    shown = text(found)
    plain = "".join(part.partition("m")[2] if i else part for i, part in enumerate(shown.split("\x1b[")))
    assert (
        plain
        == """\
control plane
  ✓ it runs
  ✗ api is FATAL  [/logs/api.log]
    second line
    → emp logs api
  ! port 80 is odd
    → choose another
  ✗ p0 is STOPPED
  ✗ p1 is STOPPED
  ✗ p2 is STOPPED
  ✗ p3 is STOPPED
  ✗ p4 is STOPPED
  ✗ p5 is STOPPED
  ✗ p6 is STOPPED
  ✗ p7 is STOPPED
  ✗ p8 is STOPPED
  ✗ p9 is STOPPED
    … and 2 more like these: emp doctor --json
  ? cannot tell (d, e): Redis is away

13 wrong, 1 to look at, 2 that could not be told"""
    )
    assert as_document(found)["counts"] == {"ok": 1, "warn": 1, "fail": 13, "unknown": 2}


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_line(log) == "it has no log"
    log.write_text("")
    assert last_line(log) == "it wrote nothing"
    log.write_text("a\n" * 10_000 + "the \x1b[31mend\n\n")
    assert last_line(log) == "the [31mend"


@pytest.mark.parametrize(
    ("state", "level", "what"),
    [
        (
            ProgramState.BACKOFF,
            Level.FAIL,
            "is BACKOFF; exited with status 3, 0.2 s after its start; last words: no model",
        ),
        # Looked at between two tries.
        (
            ProgramState.STARTING,
            Level.WARN,
            "is STARTING; before that it exited with status 3, 0.2 s after its start; last words: no model",
        ),
    ],
)
def test_a_program_that_ends_again_and_again_is_seen_whenever_one_looks(
    nothing: Facts, state: ProgramState, level: Level, what: str
) -> None:
    m = one([COMFYUI])
    program = next(p for p in m.programs if p.service == "comfyui" and p.health is not None)
    end = ProgramEnd(at_ms=NOW_MS, pid=7, exit_status=3, lived_ms=200, lines=("loading", "no model"))
    programs = {**report(m).report.programs, program.name: ProgramReport(state=state, last_end=end)}
    observed = look(m, machines={m.id: report(m, programs=programs)})
    found = msgspec.structs.replace(difference(), desired=wish(m), observed=observed)
    (problem,) = program_problem(msgspec.structs.replace(nothing, difference=found), m, program)
    head = f"{program.name} on {m.id} {what}"
    assert (problem.level, problem.what) == (level, f"{head}\n| loading\n| no model")


def test_what_keeps_emp_from_acting_is_said_with_the_way_out(nothing: Facts) -> None:
    quarantined = msgspec.structs.replace(
        drift(Kind.PROGRAM_FATAL, "comfyui-gpu0"), hold=Hold.QUARANTINE, held="needs a person: in vain"
    )
    found = difference(
        quarantined,
        overrides=(
            Override(kind=OverrideKind.PAUSE, reason="disk swap", by="ops"),
            Override(kind=OverrideKind.DRAIN, machine_id=MachineId("box"), by="ann"),
        ),
        breaker=BreakerStatus(reason="5 of 8 failed", since_ms=0, trial=("m3",)),
        rollout=RolloutStatus(
            generation=3, pending=7, done=3, stalled=True, since_progress_ms=0, broken=("a",), halted=True
        ),
    )
    told = {
        name: findings(nothing, name, difference=found) for name in ("overrides", "breaker", "rollout", "quarantine")
    }
    assert told["overrides"] == [
        ("warn", "the whole fleet is paused: disk swap (by ops)", "emp resume, when that is over"),
        ("warn", "box is drained: no reason given (by ann)", "emp resume box, when that is over"),
    ]
    ((level, what, fix),) = told["breaker"]
    assert (level, what) == ("fail", "the breaker is open, emp repairs nothing: 5 of 8 failed; it tries m3 meanwhile")
    assert "emp resume closes it" in fix
    assert told["rollout"] == [
        (
            "fail",
            "the rollout of generation 3 (3 of 10 machines) is halted: a failed with it",
            "emp explain a; then emp apply what is put right, or emp rollback",
        )
    ]
    ((level, what, fix),) = told["quarantine"]
    assert (level, what) == ("fail", "program-fatal comfyui-gpu0 on box: needs a person: in vain")
    assert fix == "emp explain program-fatal/box/comfyui-gpu0; emp restart box releases it"
    for name in told:
        assert levels(nothing, name, difference=difference()) == ["ok"]


def test_docker_hosts(nothing: Facts) -> None:
    well = EngineFacts(url="unix:///run/docker.sock", missing=(), compose="")
    lacking = EngineFacts(url="ssh://me@gpu-a", missing=("emp-machine:1",), compose="docker has no `compose` command")
    assert levels(nothing, "docker", engines={}) == ["ok"]
    assert levels(nothing, "docker", engines={"local": well}) == ["ok"]
    away = Unknown(reason="Docker host gpu-b (tcp://gpu-b:2376) does not answer")
    assert levels(nothing, "docker", engines={"local": well, "gpu-a": lacking, "gpu-b": away}) == ["fail", "fail"]
    ((level, what, fix),) = findings(nothing, "docker-images", engines={"gpu-a": lacking, "gpu-b": away})
    assert (level, what) == ("warn", "Docker host gpu-a has no image emp-machine:1")
    assert fix == "emp images build --tag emp-machine:1 --host ssh://me@gpu-a"
