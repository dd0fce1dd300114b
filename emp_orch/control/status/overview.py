"""One look at everything a fleet is made of, for `emp status`. Works with Redis or the control plane down.

What Redis does not tell is asked of the supervisords, and where they are gone, of the recorded identities.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from emp_orch import marks
from emp_orch.control.host import generation as generations
from emp_orch.control.host.orphans import Orphan, orphans
from emp_orch.control.limits import ASK_AT_ONCE, REDIS_DEADLINE_S
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.plane.parts import why_down
from emp_orch.control.plane.supervisord_plane import Plane
from emp_orch.control.status.inspect import Difference, difference
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.desired.startup import is_up
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift import container_state
from emp_orch.fleet.drift.liveness import is_booting
from emp_orch.fleet.drift.table import Drift, Kind
from emp_orch.fleet.model.fleet import AGENT, MachineId, ProgramName
from emp_orch.fleet.model.observed import (
    Instance,
    InstanceState,
    MachineReport,
    MachineStatus,
    ProgramReport,
    ProgramState,
    SeenWorker,
)
from emp_orch.fleet.policy.leader_silence import is_silent
from emp_orch.host import ownership
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, started_ms
from emp_orch.render.supervisord import CONTROL_PROGRAMS, EMBEDDED_REDIS
from emp_orch.runtimes import Runtimes, all_instances, runtimes_of
from emp_orch.runtimes.process.supervisor import ProcessInfo, Supervisor
from emp_orch.settings import Settings
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys


class Verdict(StrEnum):
    """What `emp status` comes to; its exit code is 0, 2 or 1."""

    ALL = "everything runs"
    PARTLY = "partly"
    NOTHING = "nothing runs"


class Part(Struct, frozen=True, kw_only=True):
    """A daemon of the control plane. `state` is supervisord's word; without a supervisord `alone` or `gone`."""

    name: str
    state: str
    pid: int = 0
    up_ms: int | None = None
    detail: str = ""


class MachineNow(Struct, frozen=True, kw_only=True):
    """`instance` is what its runtime says, `status` and the rest what it reported; `age_ms` the report's age.

    Programs are counted as up when they do what they are there for (a set-up step: has ended well). `engine`: what the
    engine of its container says that does not simply run.
    """

    machine_id: MachineId
    desired: bool
    instance: str
    status: str
    stale: bool
    programs_up: int
    programs: int
    workers: dict[str, int]
    workers_wanted: int
    up_ms: int | None
    age_ms: int | None
    health_url: str
    error: str
    drained: bool = False
    engine: str = ""

    @property
    def well(self) -> bool:
        if self.engine:
            return False
        if self.drained:  # on its way to no workers, as it was told: not broken
            return self.desired and not self.stale and not self.error
        return self.desired and not self.stale and self.status == MachineStatus.READY and not self.error


class Overview(Struct, frozen=True, kw_only=True):
    """`redis_error` is empty when Redis answers; without Redis `difference` and `jobs` are None.

    `supervisord` is None where Docker holds the control plane's parts. `moved_from` is where the folder was when what
    runs was started, if that is another place.
    """

    settings: Settings
    generation: int
    supervisord: Part | None
    parts: tuple[Part, ...]
    redis_error: str
    machines: tuple[MachineNow, ...]
    workers: tuple[SeenWorker, ...]
    jobs: dict[JobStatus, int] | None
    difference: Difference | None
    orphans: tuple[Orphan, ...]
    moved_from: str = ""

    @property
    def plane(self) -> tuple[Part, ...]:
        """The control plane: its parts, and before them what holds them together."""
        return self.parts if self.supervisord is None else (self.supervisord, *self.parts)

    @property
    def redis_trouble(self) -> str:
        """Why Redis cannot tell, or takes no writes; empty when it is well."""
        return self.redis_error or (self.difference.refuses if self.difference else "")

    @property
    def reconciler_silent(self) -> bool:
        """Whether nobody reconciles, as far as Redis tells."""
        if self.difference is None:
            return False
        age_ms = self.difference.status_age_ms
        return age_ms is None or is_silent(age_ms, self.difference.interval_ms)

    @property
    def verdict(self) -> Verdict:
        found = self.difference
        alive = [p.pid for p in self.plane if p.pid] + [m for m in self.machines if m.instance == InstanceState.RUNNING]
        if not alive and not self.orphans:
            return Verdict.NOTHING
        drift = found is None or any(_counts(d.drift, found) for d in found.drift)
        well = all(p.state == ProgramState.RUNNING for p in self.plane) and not drift and not self.reconciler_silent
        well = well and not self.moved_from
        return Verdict.ALL if well and all(m.well for m in self.machines if m.desired) else Verdict.PARTLY


_DRAINING = (Kind.CONFIG_BEHIND, Kind.MACHINE_STARTING, Kind.WORKER_SURPLUS)


def _counts(drift: Drift, found: Difference) -> bool:
    """Whether something is wrong: not a machine that may stay, nor a drain under way."""
    machine = found.desired.machines.get(drift.machine_id)
    draining = machine is not None and machine.drained and drift.kind in _DRAINING
    return drift.kind is not Kind.MACHINE_SURPLUS and not draining


async def look(layout: Layout, settings: Settings) -> Overview:
    """Look at everything at once. Raises EmpError only when a file of the fleet's is damaged."""
    plane = plane_of(layout, settings)
    runtimes = runtimes_of(layout, settings)
    # First, and by itself: a Docker host that is away takes its time, and no second time.
    instances = await all_instances(runtimes)
    left = orphans(layout)
    (found, redis_error), parts, jobs = await asyncio.gather(
        _difference(layout, runtimes), _parts(layout, plane, settings, left), _jobs(settings)
    )
    generation = None if found else generations.kept(layout)
    now_ms = int(time.time() * 1000)
    machines = reported(found, now_ms) if found else await _unreported(layout, generation, instances, now_ms)
    return Overview(
        settings=settings,
        generation=found.generation if found else generation.number if generation else 0,
        supervisord=None if settings.containers else _supervisord(plane.identity(), now_ms),
        parts=parts,
        redis_error=redis_error,
        machines=tuple(machines),
        workers=tuple(found.observed.workers.values()) if found else (),
        jobs=jobs,
        difference=found,
        orphans=left,
        moved_from=await asyncio.to_thread(_moved_from, layout),
    )


def _moved_from(layout: Layout) -> str:
    if marks.applied_as(layout.root) == layout.root:
        return ""
    moved_from = ownership.look(layout.root).moved_from
    return str(moved_from) if moved_from else ""


async def _difference(layout: Layout, runtimes: Runtimes) -> tuple[Difference | None, str]:
    """The difference, or why Redis cannot tell."""
    try:
        async with asyncio.timeout(REDIS_DEADLINE_S):
            return await difference(layout, runtimes), ""
    except TimeoutError:
        return None, f"no answer within {REDIS_DEADLINE_S:g} s"
    except EmpError as e:
        return None, "; ".join(filter(None, (e.message, e.hint)))
    except (RedisError, OSError) as e:
        return None, str(e)


async def _jobs(settings: Settings) -> dict[JobStatus, int] | None:
    """How many jobs are in each status; None when Redis does not tell."""
    try:
        async with (
            asyncio.timeout(REDIS_DEADLINE_S),
            client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r,
        ):
            return await Queue(r, Keys(settings.prefix)).counts()
    except (EmpError, RedisError, OSError):
        return None


async def _parts(layout: Layout, plane: Plane, settings: Settings, left: tuple[Orphan, ...]) -> tuple[Part, ...]:
    """Every daemon that there should be, in start order, as supervisord sees it."""
    infos = {i.name: i for i in await plane.programs()}
    wanted = ((EMBEDDED_REDIS,) if settings.embedded else ()) + CONTROL_PROGRAMS
    alone = {o.program: o for o in left if not o.machine_id}
    now_s = time.time()
    return tuple(_part(layout, p.name, infos.get(p.name), alone.get(p.name), now_s) for p in wanted)


def _supervisord(who: ProcessIdentity | None, now_ms: int) -> Part:
    if who is None:
        return Part(name="supervisord", state="gone")
    return Part(name="supervisord", state=ProgramState.RUNNING, pid=who.pid, up_ms=now_ms - started_ms(who))


def _part(layout: Layout, name: str, info: ProcessInfo | None, alone: Orphan | None, now_s: float) -> Part:
    if alone is not None:
        return Part(name=name, state="alone", pid=alone.pid)
    if info is None:
        return Part(name=name, state="gone")
    up_ms = int(max(0.0, now_s - info.start) * 1000) if info.pid else None
    return Part(name=name, state=info.statename, pid=info.pid, up_ms=up_ms, detail=why_down(layout, info))


def reported(found: Difference, now_ms: int) -> list[MachineNow]:
    """Every machine that is desired or was seen, those of emp.yaml first, from their reports."""
    observed, wanted = found.observed, found.desired.machines
    running = {i for i, n in observed.instances.items() if n.state is InstanceState.RUNNING}
    others = sorted(({*observed.machines} | running) - set(wanted))
    workers: dict[MachineId, dict[str, int]] = {}
    for worker in observed.workers.values():
        counts = workers.setdefault(worker.report.machine_id, {})
        silent = abs(observed.now_ms - worker.seen_ms) > found.desired.stale_after_ms
        status = "silent" if silent else str(worker.report.status)
        counts[status] = counts.get(status, 0) + 1
    machines = []
    for machine_id in [*wanted, *others]:
        seen, want = observed.machines.get(machine_id), wanted.get(machine_id)
        report = seen.report if seen else None
        programs = dict(report.programs) if report else {}
        age_ms = max(0, observed.now_ms - seen.seen_ms) if seen else None
        stale = age_ms is None or age_ms > found.desired.stale_after_ms
        # Of one that is not desired nobody knows what runs it, as long as it is heard.
        known = stale if want is None else want.runtime in observed.answered
        machines.append(
            MachineNow(
                machine_id=machine_id,
                desired=want is not None,
                instance=_instance_state(observed.instances.get(machine_id), known=known),
                status=_status(want, report, found),
                engine=_engine_says(observed.instances.get(machine_id)),
                stale=stale,
                programs_up=_up(want, programs),
                programs=len(want.programs) if want else len(programs),
                workers=dict(sorted(workers.get(machine_id, {}).items())),
                workers_wanted=len(want.workers) if want else 0,
                up_ms=_up_ms(observed.instances.get(machine_id), now_ms),
                age_ms=age_ms,
                health_url=_health_url(want, report),
                error=report.error if report else "",
                drained=want.drained if want else False,
            )
        )
    return machines


def _status(want: DesiredMachine | None, report: MachineReport | None, found: Difference) -> str:
    """What it says of itself; what a former life of it said counts for nothing."""
    if report is None:
        return "no report"
    young = want is not None and is_booting(want, found.desired, found.observed)
    return str(MachineStatus.STARTING if young else report.status)


def _engine_says(instance: Instance | None) -> str:
    engine = instance.engine if instance is not None else None
    if engine is None:
        return ""
    if engine.word != container_state.RUNNING:
        return container_state.in_short(engine)
    return "cut off" if engine.cut_off else ""


def _health_url(want: DesiredMachine | None, report: MachineReport | None) -> str:
    """Where this host can ask the machine itself; a container's port is its own."""
    here = want is None or want.traits.shares_host
    return f"http://127.0.0.1:{report.health_port}" if here and report and report.health_port else ""


async def _unreported(
    layout: Layout, generation: Generation | None, instances: dict[MachineId, Instance], now_ms: int
) -> list[MachineNow]:
    """The same without Redis: instances from their runtimes, programs from their supervisords."""
    wanted = desired_machines(generation.fleet) if generation else {}
    limit = asyncio.Semaphore(ASK_AT_ONCE)

    async def machine(machine_id: MachineId) -> MachineNow:
        want, instance = wanted.get(machine_id), instances.get(machine_id)
        running = instance is not None and instance.state is InstanceState.RUNNING
        async with limit:
            programs = await _programs(layout, machine_id) if running else {}
        return MachineNow(
            machine_id=machine_id,
            desired=want is not None,
            instance=_instance_state(instance),
            status="running" if running else "not running",
            engine=_engine_says(instance),
            stale=True,
            programs_up=_up(want, programs, healthy=True),
            programs=len(want.programs) if want else len(programs),
            workers={},
            workers_wanted=want.num_gpus if want else 0,
            up_ms=_up_ms(instance, now_ms),
            age_ms=None,
            health_url="",
            error="",
        )

    others = sorted(i for i, n in instances.items() if i not in wanted and n.state is InstanceState.RUNNING)
    return list(await asyncio.gather(*(machine(i) for i in [*wanted, *others])))


async def _programs(layout: Layout, machine_id: MachineId) -> dict[ProgramName, ProgramReport]:
    """What its supervisord says; nothing when that does not answer."""
    try:
        async with asyncio.timeout(REDIS_DEADLINE_S):
            infos = await Supervisor(layout.machine(machine_id)).all_processes()
    except (EmpError, TimeoutError, msgspec.ValidationError):
        return {}
    return {
        ProgramName(i.name): ProgramReport(state=ProgramState(i.statename), exit_status=i.exitstatus)
        for i in infos
        if i.name != AGENT
    }


def _up(
    want: DesiredMachine | None, programs: Mapping[ProgramName, ProgramReport], *, healthy: bool | None = None
) -> int:
    """How many programs are up. `healthy` stands in for a health check that nobody could tell of."""
    if want is None:
        return sum(p.state is ProgramState.RUNNING for p in programs.values())
    got = [(p, programs.get(p.name)) for p in want.programs]
    if healthy is not None:
        got = [(p, msgspec.structs.replace(g, healthy=healthy) if g else None) for p, g in got]
    return sum(is_up(p, g) for p, g in got)


def _instance_state(instance: Instance | None, *, known: bool = True) -> str:
    """`known`: its runtime was asked, so a machine it does not list does not run."""
    if instance is not None:
        return str(instance.state)
    return str(InstanceState.GONE if known else InstanceState.UNKNOWN)


def _up_ms(instance: Instance | None, now_ms: int) -> int | None:
    if instance is None or instance.state is not InstanceState.RUNNING:
        return None
    return max(0, now_ms - instance.started_ms)
