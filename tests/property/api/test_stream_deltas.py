"""A snapshot and the deltas after it are the whole state, whatever states follow each other (api/feed/snapshot)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from emp_orch.api.feed.snapshot import TABLES, Seen, Snapshot, seen_whole
from emp_orch.api.views.fleet import (
    ApiView,
    CountsView,
    DesiredMachineView,
    DriftView,
    FleetView,
    MachineView,
    ReconcilerView,
    State,
    SystemStats,
    WorkerView,
)
from emp_orch.api.views.jobs import JobsView, JobView
from emp_orch.api.views.pool_points import PointView
from emp_orch.api.views.pools import MemberView, PoolView
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements
from support.http.deltas import Mirror, parted, steady

NOW = "2026-01-01T00:00:00.000Z"
IDS = ("a", "b", '"quoted"\n<img>', "7")

TIMES = st.sampled_from(["2026-01-01T00:00:01.000Z", "2026-01-01T00:00:02.000Z"])
WORDS = st.sampled_from(["ready", "busy", 'said "no"\n'])


def machine(key: str, draw: st.DrawFn) -> MachineView:
    return MachineView(
        machine_id=key, status=draw(WORDS), reported_status="ready", stale=draw(st.booleans()), desired=True,
        boot_id="1", generation=draw(st.integers(1, 2)), config_hash="", num_gpus=1, programs={}, gpus=(), host="h",
        agent_version="", health_port=0, package="", package_error="", started_at=NOW,
        last_seen=draw(TIMES), age_s=draw(st.integers(0, 3)),
        error="", workers=draw(st.lists(st.sampled_from(IDS), max_size=2)),
    )  # fmt: skip


def worker(key: str, draw: st.DrawFn) -> WorkerView:
    return WorkerView(
        worker_id=key, machine_id=draw(st.sampled_from(IDS)), gpu=draw(st.integers(0, 1)), status=draw(WORDS),
        reported_status="idle", stale=draw(st.booleans()), capabilities={}, connector_statuses={}, current_job_id=None,
        package="", jobs_completed=0, jobs_failed=0, pid=1, started_at=NOW, last_seen=draw(TIMES),
        age_s=draw(st.integers(0, 3)),
    )  # fmt: skip


def drift(key: str, draw: st.DrawFn) -> DriftView:
    return DriftView(
        key=key, kind="k", machine_id="a", subject=key, program=None, desired="", observed="", cause="", origin="",
        since=NOW, action=draw(WORDS), held="", attempts=draw(st.integers(0, 1)), last_attempt=None, next_attempt=None,
    )  # fmt: skip


def desired(key: str, draw: st.DrawFn) -> DesiredMachineView:
    number = draw(st.integers(0, 1))
    return DesiredMachineView(id=key, runtime="process", num_gpus=number, services=(), programs=(), origin="")


def job(key: str, draw: st.DrawFn) -> JobView:
    return JobView(
        job_id=key, service="s", status=JobStatus.IN_PROGRESS, priority=0, requirements=Requirements(service="s"),
        lane="l", attempts=0, max_retries=0, created_at=NOW, assigned_at=None, started_at=None, finished_at=None,
        worker_id=None, cancel_requested=False, progress=draw(st.sampled_from([0.0, 0.5])), message="", error=None,
    )  # fmt: skip


def pool(key: str, draw: st.DrawFn) -> PoolView:
    return PoolView(name=key, provider="join", least=0, most=4, wanted=draw(st.integers(0, 1)), why=draw(WORDS))


def member(key: str, draw: st.DrawFn) -> MemberView:
    return MemberView(
        id=key, pool=draw(WORDS), state=draw(WORDS), name="", why=draw(WORDS), born=NOW, joined=None, leaving=None
    )


def point(key: str, draw: st.DrawFn) -> PointView:
    return PointView(pool="p", at=key, waiting=draw(st.integers(0, 1)), running=0, there=0, wanted=0)


def some(draw: st.DrawFn, make: Any) -> list[Any]:
    return [make(key, draw) for key in draw(st.lists(st.sampled_from(IDS), unique=True))]


@st.composite
def states(draw: st.DrawFn) -> State:
    small = st.integers(0, 1)
    reconciler = ReconcilerView(alive=draw(st.booleans()), as_of=draw(TIMES), age_s=draw(small), leader="", epoch=1)
    api = ApiView(version="", started_at=NOW, uptime_s=draw(small), sse_clients=draw(small), ws_clients=0)
    count = CountsView(total=1, by_status={"idle": 1})
    return State(
        machines=sorted(some(draw, machine), key=lambda m: str(m.machine_id)),
        workers=sorted(some(draw, worker), key=lambda w: (w.machine_id, w.gpu, w.worker_id)),
        jobs=JobsView(counts={"pending": draw(small)}, active=some(draw, job)),
        drift=some(draw, drift),
        fleet=FleetView(
            name="f", generation=draw(small), digest="", applied_at=None, in_sync=None, paused=draw(WORDS),
            stale_after_s=10, machines=tuple(some(draw, desired)),
        ),
        system_stats=SystemStats(
            machines=count, workers=count, drift=draw(small), malformed=0, redis={"ok": True}, reconciler=reconciler,
            api=api,
        ),
        pools=some(draw, pool),
        members=sorted(some(draw, member), key=lambda m: str(m.id)),
        points=sorted(some(draw, point), key=lambda m: str(m.at)),
    )  # fmt: skip


def by_changes(before: State, after: State, also: frozenset[str]) -> Seen:
    """What a look by changes tells: what differs, and of `also` what does not."""
    old, new = seen_whole(before), seen_whole(after)
    told: dict[str, Any] = {}
    for name in TABLES:
        had, has = getattr(old, name), getattr(new, name)
        told[name] = {k: has.get(k) for k in {*had, *has} if had.get(k) != has.get(k) or k in also}
    fields = {name: getattr(new, name) for name in ("counts", "fleet", "system_stats")}
    return structs.replace(new, whole=frozenset(), **told, **fields)


def plain(state: State) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(state))
    return found


@given(st.lists(states(), min_size=1, max_size=6), st.lists(st.booleans()), st.frozensets(st.sampled_from(IDS)))
def test_snapshot_and_deltas_are_the_whole_state(found: list[State], whole: list[bool], also: frozenset[str]) -> None:
    snapshot, mirror, before = Snapshot(), Mirror(), found[0]
    snapshot.take(seen_whole(before), NOW)
    mirror.snapshot({"revision": snapshot.revision, "data": json.loads(snapshot.whole())})
    for number, state in enumerate(found[1:]):
        known = mirror.known
        by_change = number < len(whole) and not whole[number]
        seen = by_changes(before, state, also) if by_change else seen_whole(state)
        revision = snapshot.revision
        delta = snapshot.take(seen, NOW)
        # It is a revision if, and only if, something differs that means something.
        assert (delta is not None) == (steady(*parted(plain(state))) != known)
        assert snapshot.revision == revision + (delta is not None)
        if delta is not None:
            document = json.loads(delta)
            assert (document["base"], document["revision"]) == (revision, revision + 1)
            assert not {k for k, v in {**document["set"], **document["gone"]}.items() if not v}
            mirror.delta(document)
        assert mirror.known == steady(*parted(plain(state)))
        assert steady(*parted(json.loads(snapshot.whole()))) == mirror.known
        before = state


@given(st.lists(states(), min_size=2, max_size=4))
def test_the_snapshot_is_the_state_in_its_order(found: list[State]) -> None:
    snapshot = Snapshot()
    for state in found:
        snapshot.take(seen_whole(state), NOW)
        assert json.loads(snapshot.whole()) == plain(state)
        assert msgspec.json.decode(snapshot.whole(), type=State) == state


@given(states(), states())
def test_a_delta_holds_only_what_differs(before: State, after: State) -> None:
    snapshot = Snapshot()
    snapshot.take(seen_whole(before), NOW)
    delta = snapshot.take(seen_whole(after), NOW)
    told = json.loads(delta) if delta else {"set": {}, "gone": {}}
    had, had_rest = steady(*parted(plain(before)))
    has, has_rest = steady(*parted(plain(after)))
    jobs = told["set"].get("jobs", {})
    for name in had:
        sent = jobs.get("active", {}) if name == "jobs" else told["set"].get(name, {})
        assert set(sent) == {k for k, v in has[name].items() if had[name].get(k) != v}
        assert set(told["gone"].get(name, ())) == had[name].keys() - has[name].keys()
    assert {k for k in had_rest if k in told["set"] or (k == "counts" and "counts" in jobs)} == {
        k for k in had_rest if had_rest[k] != has_rest[k]
    }
