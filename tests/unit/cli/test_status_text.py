"""What `emp status` prints, letter by letter, and what it comes to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.cli.inspect.status import as_document, screen
from emp_orch.cli.output.holds import who_holds
from emp_orch.control.host.orphans import Orphan
from emp_orch.control.status.inspect import Difference, DriftNow
from emp_orch.control.status.overview import MachineNow, Overview, Part, Verdict
from emp_orch.fleet.drift.table import Kind
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    SeenWorker,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.pauses import drained
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.settings import Listen, Settings
from emp_orch.store.fleet.status import BreakerStatus, RolloutStatus
from support.fleet.differences import NOW, difference, drift

SETTINGS = Settings(
    fleet="basic",
    redis_url="redis://user:hush@redis.example:6379/0",
    machine_redis_url="redis://user:hush@redis.example:6379/0",
    embedded=True,
    redis_port=6379,
    prefix="",
    artifacts="file:///srv/artifacts",
    api=Listen(host="127.0.0.1", port=3331, token="hush"),
    monitor=Listen(host="127.0.0.1", port=3333),
)


def part(name: str, state: str = "RUNNING", pid: int = 11, up_ms: int | None = 65_000) -> Part:
    return Part(name=name, state=state, pid=pid, up_ms=up_ms)


def machine(machine_id: str, **changes: object) -> MachineNow:
    fine = MachineNow(
        machine_id=MachineId(machine_id),
        desired=True,
        instance="running",
        status="ready",
        stale=False,
        programs_up=8,
        programs=8,
        workers={"busy": 1, "idle": 1},
        workers_wanted=2,
        up_ms=61_000,
        age_ms=1_200,
        health_url="http://127.0.0.1:9090",
        error="",
    )
    return msgspec.structs.replace(fine, **changes)


def worker(gpu: int, **changes: object) -> SeenWorker:
    report = WorkerReport(
        worker_id=WorkerId(f"box-worker-{gpu}"),
        machine_id=MachineId("box"),
        gpu=gpu,
        status=WorkerStatus.IDLE,
        capabilities={},
        connector_statuses={"comfyui": ConnectorReport(status=ConnectorStatus.IDLE)},
        started_ms=0,
        jobs_completed=7,
    )
    return SeenWorker(report=msgspec.structs.replace(report, **changes), seen_ms=NOW - 500)


def overview(**changes: object) -> Overview:
    fine = Overview(
        settings=SETTINGS,
        generation=3,
        supervisord=part("supervisord", pid=10),
        parts=tuple(part(n) for n in ("redis", "api", "reconcile", "monitor", "eventlog")),
        redis_error="",
        machines=(machine("box"),),
        workers=(worker(0, status=WorkerStatus.BUSY, current_job_id="j-1"), worker(1)),
        jobs=dict.fromkeys(JobStatus, 0) | {JobStatus.PENDING: 4, JobStatus.COMPLETED: 17},
        difference=difference(workers=(worker(0), worker(1))),
        orphans=(),
    )
    return msgspec.structs.replace(fine, **changes)


def test_all_is_well() -> None:
    found = overview()
    assert found.verdict is Verdict.ALL
    assert (
        screen(found)
        == """\
basic: everything runs, generation 3
  page  http://127.0.0.1:3333
  API   http://127.0.0.1:3331

CONTROL PLANE  STATE    PID  UP
supervisord    RUNNING  10   1m5s
redis          RUNNING  11   1m5s  embedded, redis://***@redis.example:6379/0
api            RUNNING  11   1m5s
reconcile      RUNNING  11   1m5s  last look 900ms ago
monitor        RUNNING  11   1m5s
eventlog       RUNNING  11   1m5s

MACHINE  STATUS  PROGRAMS  WORKERS         REPORT  UP    HEALTH
box      ready   8/8       1 busy, 1 idle  1s ago  1m1s  http://127.0.0.1:9090

WORKER        STATUS  JOB  DONE  FAILED  CONNECTORS
box-worker-0  busy    j-1  7     0       comfyui idle
box-worker-1  idle    -    7     0       comfyui idle

jobs   4 pending · 17 completed
drift  none"""
    )


def test_no_supervisord_where_docker_holds_the_control_plane() -> None:
    held, contained = overview(), overview(supervisord=None)
    assert contained.verdict is Verdict.ALL
    assert screen(contained) == screen(held).replace("supervisord    RUNNING  10   1m5s\n", "")
    assert as_document(contained)["control_plane"]["supervisord"] is None


def test_something_is_missing() -> None:
    found = overview(
        machines=(
            machine("box", programs_up=7, workers={"idle": 1}, status="configuring", error="not up: comfyui-gpu0"),
            machine("old", desired=False, workers_wanted=0, workers={}, health_url=""),
            machine("quiet", stale=True, age_ms=95_000),
        ),
        workers=(
            worker(0, connector_statuses={"comfyui": ConnectorReport(status=ConnectorStatus.ERROR, detail="refused")}),
        ),
        difference=difference(
            drift(Kind.PROGRAM_STOPPED, "comfyui-gpu0"),
            drift(Kind.MACHINE_SURPLUS, "old", age_ms=None),
            paused="a fair (by me)",
        ),
    )
    assert found.verdict is Verdict.PARTLY
    text = screen(found)
    assert text.splitlines()[0] == "basic: partly, generation 3"
    assert text.splitlines()[3] == "  next  emp doctor · emp diff · emp explain · emp logs"
    assert "reconcile      RUNNING  11   1m5s  paused: a fair (by me)\n" in text
    assert (
        text.partition("\nMACHINE ")[2]
        == """\
 STATUS                             PROGRAMS  WORKERS            REPORT     UP    HEALTH
box      configuring: not up: comfyui-gpu0  7/8       1 idle, 1 missing  1s ago     1m1s  http://127.0.0.1:9090
old      ready, not in emp.yaml             8/8       -                  1s ago     1m1s  -
quiet    silent (was ready)                 8/8       1 busy, 1 idle     1m35s ago  1m1s  http://127.0.0.1:9090

WORKER        STATUS  JOB  DONE  FAILED  CONNECTORS
box-worker-0  idle    -    7     0       comfyui error (refused)

jobs   4 pending · 17 completed
drift  2
  program-stopped comfyui-gpu0: RUNNING → STOPPED, for 12s (it was stopped)
  machine-surplus old: RUNNING → STOPPED (it was stopped)"""
    )


LONG_AGO = "1970-01-01T00:15:00.000Z"  # 100 s before NOW
PAUSE = Override(kind=OverrideKind.PAUSE, reason="disk swap", by="ops", at=LONG_AGO)
DRAIN = Override(kind=OverrideKind.DRAIN, machine_id=MachineId("box"), by="ann", at=LONG_AGO)


def test_what_people_and_policies_hold_up_stands_at_the_top() -> None:
    left = "needs a person: 5 tries and 3 restarts of the machine in 30 min did not help"
    quarantined = msgspec.structs.replace(
        drift(Kind.PROGRAM_FATAL, "comfyui-gpu0"), hold=Hold.QUARANTINE, held=left, action="start program"
    )
    rollout = RolloutStatus(
        generation=3, pending=7, done=3, stalled=True, since_progress_ms=NOW - 700_000, broken=("a", "b"), halted=True
    )
    found = overview(
        difference=difference(
            quarantined,
            paused=PAUSE.words,
            overrides=(PAUSE, DRAIN),
            breaker=BreakerStatus(reason="5 of 8 machines failed", since_ms=NOW - 120_000, trial=("m3",)),
            rollout=rollout,
        ),
    )
    head, _, rest = screen(found).partition("\n\n")
    assert head.splitlines()[4:] == [
        "  pause   fleet: disk swap (by ops), since 1m40s; `emp resume` ends it",
        "  drain   box: no reason given (by ann), since 1m40s; `emp resume box` ends it",
        "  breaker open since 2m: 5 of 8 machines failed; trying m3; `emp resume` closes it",
        "  rollout generation 3: 3 of 10 machines in order; halted: a, b failed with it;"
        " stalled: no progress since 11m40s",
        f"  person  program-fatal comfyui-gpu0: {left}",
    ]
    assert rest.endswith(f"(it was stopped); waits: {left}")
    document = as_document(found)
    assert [o["kind"] for o in document["overrides"]] == ["pause", "drain"]
    assert (document["breaker"]["trial"], document["rollout"]["halted"]) == (("m3",), True)
    (shown,) = document["drift"]
    assert (shown["hold"], shown["held"]) == ("quarantine", left)


def test_many_overrides_fit_on_the_screen() -> None:
    many = tuple(msgspec.structs.replace(DRAIN, machine_id=MachineId(f"m{n:02}")) for n in range(40))
    text = screen(overview(difference=difference(overrides=many)))
    assert text.count("  drain   ") == 8
    assert "… and 32 more pauses and drains: emp status --json" in text


def drained_difference(*found: DriftNow) -> Difference:
    """What is seen while `box` is drained."""
    whole = difference(*found, overrides=(DRAIN,))
    return msgspec.structs.replace(whole, desired=drained(whole.desired, (DRAIN,)))


def test_a_drained_machine_is_not_broken() -> None:
    busy = machine("box", drained=True, status="configuring", workers={"draining": 1}, workers_wanted=0)
    under_way = overview(
        machines=(busy,),
        difference=drained_difference(
            drift(Kind.CONFIG_BEHIND, "box", age_ms=1_000), drift(Kind.WORKER_SURPLUS, "box-worker-0")
        ),
    )
    assert under_way.verdict is Verdict.ALL
    assert "box      configuring, draining  8/8       1 draining  " in screen(under_way)
    done = machine("box", drained=True, workers={}, workers_wanted=0)
    assert overview(machines=(done,), difference=drained_difference()).verdict is Verdict.ALL
    assert "box      ready, drained  8/8       -  " in screen(
        overview(machines=(done,), difference=drained_difference())
    )
    for broken in (
        overview(machines=(machine("box", drained=True, stale=True),), difference=drained_difference()),
        overview(machines=(done,), difference=drained_difference(drift(Kind.PROGRAM_FATAL, "comfyui-gpu0"))),
        overview(machines=(busy,), difference=difference(drift(Kind.CONFIG_BEHIND, "box"))),
    ):
        assert broken.verdict is Verdict.PARTLY


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"paused": "x (by me)"}, "the reconciler is paused: x (by me); `emp resume` ends it"),
        ({"breaker": BreakerStatus(reason="3 failed", since_ms=NOW)}, "the breaker is open since 0ms: 3 failed; `emp"),
        (
            {"rollout": RolloutStatus(generation=4, pending=1, stalled=True, since_progress_ms=NOW - 60_000)},
            "the rollout of generation 4: 0 of 1 machines in order; stalled: no progress since 1m",
        ),
        ({"rollout": RolloutStatus(generation=4, pending=1, stalled=False, since_progress_ms=NOW)}, ""),
    ],
)
def test_why_nothing_goes_on(changes: dict[str, Any], words: str) -> None:
    told = who_holds(difference(**changes))
    assert told.startswith(words) and bool(told) == bool(words)
    waiting = msgspec.structs.replace(
        drift(Kind.PROGRAM_FATAL, "p"), hold=Hold.BACKOFF, held="backoff after 2 attempts"
    )
    assert who_holds(difference(waiting)) == "p waits: backoff after 2 attempts; see `emp explain`"


def test_redis_is_away() -> None:
    found = overview(
        redis_error="Redis does not answer",
        difference=None,
        jobs=None,
        workers=(),
        machines=(machine("box", status="running", stale=True, age_ms=None, workers={}, health_url=""),),
    )
    assert found.verdict is Verdict.PARTLY
    text = screen(found)
    assert "redis          RUNNING  11   1m5s  Redis does not answer\n" in text
    assert "\nbox      running  8/8       -        -       1m1s  -\n" in text
    assert text.endswith("\n\ndrift  unknown: Redis does not answer")


NOTHING = {
    "supervisord": part("supervisord", "gone", 0, None),
    "parts": tuple(part(n, "gone", 0, None) for n in ("redis", "api", "reconcile", "monitor", "eventlog")),
    "redis_error": "Redis does not answer",
    "difference": None,
    "machines": (machine("box", instance="gone", status="not running", stale=True, age_ms=None),),
}


def test_nothing_runs() -> None:
    found = overview(**NOTHING)
    assert found.verdict is Verdict.NOTHING
    assert "  next  emp apply\n" in screen(found)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"difference": difference(drift(Kind.MACHINE_SURPLUS, "old"))}, Verdict.ALL),
        ({"difference": difference(drift(Kind.WORKER_STALE, "box-worker-0"))}, Verdict.PARTLY),
        ({"difference": difference(status_age_ms=None)}, Verdict.PARTLY),
        ({"difference": difference(status_age_ms=11_000)}, Verdict.PARTLY),
        ({"difference": difference(status_age_ms=11_000, interval_ms=3_000)}, Verdict.ALL),
        ({"parts": (part("api", "STOPPED", 0),)}, Verdict.PARTLY),
        ({"machines": (machine("box", status="starting"),)}, Verdict.PARTLY),
        ({"machines": (machine("box", error="not up: x"),)}, Verdict.PARTLY),
        ({"machines": (machine("old", desired=False, status="starting"),)}, Verdict.ALL),
        ({"machines": ()}, Verdict.ALL),
        ({**NOTHING, "machines": (machine("box"),)}, Verdict.PARTLY),
        (
            {**NOTHING, "orphans": (Orphan(machine_id="", program="redis", pid=9, home=Layout.root),)},  # type: ignore[misc]
            Verdict.PARTLY,
        ),
    ],
)
def test_what_it_comes_to(changes: dict[str, object], verdict: Verdict) -> None:
    assert overview(**changes).verdict is verdict


def test_a_large_fleet_shows_what_is_not_well_first() -> None:
    machines = [machine(f"m{i:03}") for i in range(100)]
    machines[70] = machine("m070", status="starting")
    text = screen(overview(machines=tuple(machines), workers=()))
    rows = [line for line in text.splitlines() if line.startswith("m0")]
    assert [row.split()[0] for row in rows[:2]] == ["m070", "m000"]
    assert len(rows) == 15
    assert "… and 85 more machines, all ready: emp status --all" in text
    assert (
        len([r for r in screen(overview(machines=tuple(machines)), everything=True).splitlines() if r[:2] == "m0"])
        == 100
    )


def test_json_tells_no_secret() -> None:
    text = msgspec.json.encode(as_document(overview())).decode()
    assert "hush" not in text
    assert '"url":"redis://***@redis.example:6379/0"' in text
