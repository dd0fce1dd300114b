"""Fleets with pools for tests of the pure rooms, and their members as they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool, PoolName, PoolScale, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import MachineReport, Observed, SeenMachine, SeenWorker, WorkerStatus
from emp_orch.fleet.model.pools import Backlog, Box, BoxState, SeenPool, Waiting
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.policy.pauses import drained
from support.fleet.fleets import NOW_MS, OLD_MS, SIMULATION, fleet, machine, report, wish, worker

RENDERS = PoolName("renders")
ENGINE = "command"


def pool(name: str = "renders", least: int = 0, most: int = 40, **changes: Any) -> Pool:
    """A pool of an engine, whose size follows at once; `changes` are fields of Pool, or of its scale."""
    scale = {"jobs_per_gpu": 1.0, "up_after_s": 0.0, "down_after_s": 0.0}
    scale |= {key: changes.pop(key) for key in scale if key in changes}
    template = machine(
        "", services=[SIMULATION.name], num_gpus=changes.pop("num_gpus", 1), runtime=RuntimeKind.EXTERNAL
    )
    fields: dict[str, Any] = {
        "name": PoolName(name),
        "provider": ENGINE,
        "min_size": least,
        "max_size": most,
        "template": template,
        "scale": PoolScale(**scale),
        "forget_after_s": 600.0,
        "cost": 1.0,
        "options": {},
        "origin": f"emp.yaml:{name}",
    }
    return Pool(**{**fields, **changes})


def member(number: int, of: str = "renders", **changes: Any) -> Member:
    """Member NAME-NUMBER, which joined long ago; `changes` are fields of Member."""
    fields: dict[str, Any] = {
        "id": MachineId(f"{of}-{number}"),
        "pool": PoolName(of),
        "state": MemberState.IN,
        "born_ms": OLD_MS,
        "joined_ms": OLD_MS,
    }
    return Member(**{**fields, **changes})


def asked(number: int, of: str = "renders", *, ago_ms: int = 1_000) -> Member:
    """One whose box was asked for, and that has not joined."""
    return member(number, of, state=MemberState.EXPECTED, born_ms=NOW_MS - ago_ms, joined_ms=0)


def pools_wish(pools: Iterable[Pool], members: Iterable[Member] = ()) -> Desired:
    """What is desired of `pools` with `members`; those that are to leave are drained."""
    known, found = {p.name: p for p in pools}, tuple(members)
    base = fleet([SIMULATION])
    machines = [desired_machine(base, machine_of_member(known[m.pool], m.id)) for m in found]
    desired = structs.replace(wish(*machines), pools=known, members={m.id: m for m in found})
    return drained(desired, ())


def pools_look(
    desired: Desired,
    waiting: Mapping[str, int] | None = None,
    *,
    busy: Iterable[str] = (),
    silent: Iterable[str] = (),
    silent_ms: int = 50_000,
    boxes: Mapping[str, BoxState] | None = None,
    words: str = "",
    error: str = "",
    now_ms: int = NOW_MS,
    unread: bool = False,
) -> Observed:
    """What one sees of the members that joined: all in order, each with a box that runs. `waiting`: jobs by the pools
    that can run them, as `a+b`; `busy`, `silent` (for `silent_ms`): ids of members; `boxes`: what engines
    say instead; `unread`: of the queue, nothing.
    """
    busy, silent = set(busy), set(silent)
    of_pools = [m for m in desired.machines.values() if m.id in desired.members]
    here = [m for m in of_pools if desired.members[m.id].joined_ms and m.id not in silent]
    machines: dict[MachineId, SeenMachine] = {m.id: report(m, seen_ms=now_ms) for m in here}
    old = [m for m in of_pools if m.id in silent]
    machines |= {m.id: report(m, seen_ms=now_ms - silent_ms) for m in old}
    workers: dict[WorkerId, SeenWorker] = {}
    for m in (*here, *old):
        at_work = m.id in busy
        if m.drained and not at_work:
            continue
        status = WorkerStatus.BUSY if at_work else WorkerStatus.IDLE
        job = {"current_job_id": "j"} if at_work else {}
        workers |= {
            worker_id(m.id, s): worker(m, s, seen_ms=machines[m.id].seen_ms, status=status, **job)
            for s in range(m.num_gpus)
        }
    states = dict.fromkeys(desired.members, BoxState.RUNNING) if boxes is None else boxes
    seen = {
        name: SeenPool(
            boxes=None
            if error
            else tuple(
                Box(member_id=MachineId(i), state=s, words=words) for i, s in states.items() if i.startswith(f"{name}-")
            ),
            error=error,
            backlog=None
            if unread
            else Backlog(
                running=sum(desired.machines[MachineId(i)].num_gpus for i in busy if i.startswith(f"{name}-")),
            ),
        )
        for name in desired.pools
    }
    return Observed(
        now_ms=now_ms,
        observing_since_ms=OLD_MS,
        machines=machines,
        workers=workers,
        instances={},
        pools=seen,
        waiting=tuple(
            Waiting(pools=tuple(PoolName(n) for n in names.split("+")), jobs=n) for names, n in (waiting or {}).items()
        ),
    )


def with_worker_programs(seen: SeenMachine, of: MachineReport) -> SeenMachine:
    """`seen`, whose supervisord has the programs of `of` still."""
    return structs.replace(seen, report=structs.replace(seen.report, programs=of.programs))


__all__ = ["RENDERS", "asked", "config_hash", "member", "pool", "pools_look", "pools_wish", "with_worker_programs"]
