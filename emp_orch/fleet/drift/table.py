"""Desired against observed: what differs, as an ordered table of kinds; the first that matches a subject wins.

| kind | subject | when | leads to |
|---|---|---|---|
| redis-damaged | a key in Redis | it is not what emp keeps there | nothing: shown; a stream heals |
| report-malformed | machine, worker | its report does not fit its type; not known to be gone | nothing: shown |
| machine-missing | machine | not reported (or long ago) and its runtime says it does not run | start it |
| container-outdated | machine | in a container made from another image, host, GPUs, ports; heard or not | recreate it |
| container-paused | machine | its container is paused | let it go on |
| container-cut-off | machine | its container is not in its fleet's network | connect it |
| container-looping | machine | its container ends again and again | nothing: its engine starts it, ever later |
| machine-booting | machine | its runtime says it runs, but too short a time to have been heard | nothing yet |
| machine-stale | machine | runs, but has not reported for stale_after | restart it |
| machine-unreachable | machine | stale, and no runtime here can tell whether it runs | nothing: unknown stops nothing |
| machine-away | machine | external, and not heard: it has not joined, or is silent | nothing: a person starts it |
| member-silent | machine | of a pool, and not heard: it left, is silent, or never came | forget it after forget_after |
| config-behind | machine | reports another configuration than desired | send the configuration |
| machine-starting | machine | start-up sequence under way; its programs stopped meanwhile show too | nothing yet |
| generation-behind | machine | same configuration, older generation number | send the configuration |
| program-missing | program | desired, but supervisord has no such program | send the configuration |
| program-port-taken | program | not up, and somebody else listens on its port | nothing: a person |
| program-flapping | program | ended unasked five times in two minutes | stop it; start it again with backoff |
| program-fatal | program | FATAL, or a set-up step that failed | start it |
| program-waiting | program | STOPPED, and a program it starts after is not up | nothing yet |
| program-stopped | program | STOPPED or EXITED | start it |
| program-starting | program | STARTING, BACKOFF or STOPPING: supervisord is at it | nothing yet |
| program-unhealthy | program | RUNNING, health check failing | restart it |
| program-surplus | program | reported, not desired | send the configuration |
| worker-missing | worker | its program runs, but it does not report | restart its program |
| worker-stale | worker | reported before, not for stale_after | restart its program |
| worker-wrong-machine | worker | reports another machine than its id says | restart its program |
| worker-outdated | worker | reports another package than desired | once its machine has that: restart its program |
| worker-wrong-capabilities | worker | lacks what emp.yaml says it can do | restart its program |
| connector-broken | worker | a service of it has a connector that did not load | nothing: a person |
| connector-unhealthy | worker | its connector to a service is in error or offline | a minute later: restart that |
| store-broken | worker | it cannot save what jobs make, so it takes none | nothing: a person, or the store comes back |
| service-stuck | worker | a run on its service ignores its interrupt | restart that after stuck_after |
| service-occupied | worker | somebody else's run keeps its service from its jobs | nothing: a person |
| worker-starting | worker | its program has not run long enough to judge, or it says initializing | nothing yet |
| orders-forged | machine | refused orders in Redis that its fleet did not give | nothing: a person |
| machine-conflict | machine | two agents report as it; the last word is another's | nothing: a person |
| machine-wrong-redis | machine | reports another Redis than this fleet's | restart it |
| service-shared-folders | machine | ComfyUIs of several slots write into one folder | nothing: a person |
| image-moved | machine | its image's name means another one on its host since | nothing: a person applies |
| supervisord-outdated | machine | it loaded another extension than the emp applied has | restart the machine |
| agent-outdated | agent | it loaded another emp than the one applied, which is there | restart the agent |
| disk-full | machine | it cannot write in its folder, or that of its logs | nothing: a person |
| gpu-lost, gpu-missing | machine | a GPU fails; the driver shows fewer than num_gpus | nothing: a person |
| control-down | part of the control plane | FATAL or STOPPED | start it |
| emp-outdated | the fleet | the emp on this host's disk is not the one that was applied | nothing: a person applies |
| worker-surplus | worker | reports, but is not desired | forget it once it is silent |
| machine-foreign | machine | reports, not desired, and no runtime here knows it | nothing: unknown stops nothing |
| machine-surplus | machine | runs, reported, or is there when pruning; not desired | stop and forget, when pruning |
| pool-short | pool | fewer members than its size, or they do not come (fleet/pools) | ask its engine for more |
| pool-over | member | one more than its size, or on its way out (fleet/pools) | drain it; then remove it |
| member-gone | member | its engine says so, or has a box for nobody (fleet/pools) | give the box back, forget it |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from emp_orch.fleet.desired.containers import another_image, container_hash, short_id, unmounted
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift import container_state
from emp_orch.fleet.drift.conflicts import TWO_AGENTS, conflicts, control_plane
from emp_orch.fleet.drift.kinds import UNHEARD, Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import (
    BOOT_GRACE_MS,
    NOBODY_WAS_HEARD,
    age,
    instance_of,
    is_booting,
    is_young,
    live_report,
    may_be_alive,
    overwritten,
)
from emp_orch.fleet.drift.members import silent_member
from emp_orch.fleet.drift.programs import Unreadable, program_drift, stopped_meanwhile, worker_drift
from emp_orch.fleet.drift.sharing import shared_folders
from emp_orch.fleet.drift.surplus import surplus_machines, surplus_workers
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import (
    ContainerState,
    Instance,
    InstanceState,
    MachineStatus,
    Observed,
    SeenMachine,
)

MAX_FAULT = 300
UNFORESEEN = "emp cannot make sense of what it reports"

__all__ = ["BOOT_GRACE_MS", "Desired", "Drift", "Kind", "diff"]


def diff(desired: Desired, observed: Observed) -> tuple[Drift, ...]:
    """Every difference, machines in the order of emp.yaml, then what is surplus."""
    unreadable = unreadable_of(observed)
    by_machine = {i: judged(m, desired, observed, unreadable) for i, m in desired.machines.items()}
    return assembled(by_machine.values(), desired, observed)


def unreadable_of(observed: Observed) -> Unreadable:
    return {(m.kind, m.id): m.seen_ms for m in observed.malformed}


def assembled(by_machine: Iterable[Sequence[Drift]], desired: Desired, observed: Observed) -> tuple[Drift, ...]:
    """The whole of what differs: `by_machine` is the drift of desired machines; of `observed` only what nobody wants
    matters, and what cannot be read.
    """
    found = [d for drifts in by_machine for d in drifts]
    found += control_plane(desired, observed)
    found += surplus_workers(desired, observed)
    found += surplus_machines(desired, observed)
    # What is known to be gone or silent is no riddle; the rest of the unreadable is.
    known = {(d.kind.partition("-")[0], d.subject) for d in found} if observed.malformed else set()
    riddles = sorted((m.kind, m.id, m.error) for m in observed.malformed if (m.kind, m.id) not in known)
    return (*(_malformed(*riddle) for riddle in riddles), *found)


def _malformed(kind: str, subject: str, error: str) -> Drift:
    return Drift(
        kind=Kind.REPORT_MALFORMED,
        machine_id=MachineId(subject) if kind == "machine" else machine_of(subject),
        subject=subject,
        desired="a report that fits",
        observed=error,
        cause="another program wrote it, or another version of emp",
        origin="",
    )


def judged(machine: DesiredMachine, desired: Desired, observed: Observed, unreadable: Unreadable) -> Sequence[Drift]:
    """`machine_drift`; where what a machine says leads to an error that nobody foresaw, that stands for it alone."""
    try:
        return machine_drift(machine, desired, observed, unreadable)
    except Exception as e:  # noqa: BLE001  # the other machines are to be judged all the same
        found = f"{type(e).__name__}: {e}"[:MAX_FAULT]
        return [structs.replace(_malformed("machine", machine.id, found), cause=UNFORESEEN, origin=machine.origin)]


def machine_drift(
    machine: DesiredMachine, desired: Desired, observed: Observed, unreadable: Unreadable
) -> Sequence[Drift]:
    """What differs on one desired machine."""
    instance = instance_of(machine, observed)
    gone = instance is not None and instance.state is InstanceState.GONE
    seen_ms = unreadable.get(("machine", machine.id))
    if not gone and seen_ms is not None and may_be_alive(seen_ms, machine.id, desired, observed):
        return []
    whole = _whole_machine(machine, instance, desired, observed, seen_ms)
    seen = observed.machines.get(machine.id)
    if seen is None:
        return [whole] if whole else []
    if whole is not None and (whole.kind in UNHEARD or live_report(machine, desired, observed) is None):
        return [whole]  # the report that is there may be a former life's
    beside = [*conflicts(machine, seen, desired, observed), *shared_folders(machine, desired, observed)]
    if whole is not None:
        meanwhile = stopped_meanwhile(machine, seen, observed) if whole.kind is Kind.MACHINE_STARTING else ()
        return [*beside, whole, *meanwhile]
    programs = program_drift(machine, seen, observed.now_ms)
    ill = {d.program for d in programs if d.program is not None}
    own = [*programs, *worker_drift(machine, seen, desired, observed, unreadable, ill)]
    if not own and seen.report.status is not MachineStatus.READY:
        return [*beside, _starting(machine, seen, observed.now_ms)]
    return [*beside, *own] if beside else own


def _starting(machine: DesiredMachine, seen: SeenMachine, now_ms: int) -> Drift:
    status = seen.report.status
    begins = status in (MachineStatus.STARTING, MachineStatus.CONFIGURING)
    return Drift(
        kind=Kind.MACHINE_STARTING,
        machine_id=machine.id,
        subject=machine.id,
        desired="ready",
        observed=status,
        cause=_under_way(machine, seen, now_ms) if begins else f"the machine is {status}",
        origin=machine.origin,
        seen_ms=seen.seen_ms,
    )


_ON_ITS_WAY = (Kind.PROGRAM_STARTING, Kind.PROGRAM_FATAL, Kind.PROGRAM_UNHEALTHY)


def _under_way(machine: DesiredMachine, seen: SeenMachine, now_ms: int) -> str:
    """What the start-up sequence is at: the first program that it waits for."""
    at = next((d for d in program_drift(machine, seen, now_ms) if d.kind in _ON_ITS_WAY), None)
    return "its start-up sequence is under way" + (f"; {at.subject} is {at.observed}: {at.cause}" if at else "")


def _why_away(machine_id: MachineId, seen_ms: int | None, desired: Desired, observed: Observed) -> str:
    if machine_id in observed.shut_out:
        return "emp shut it out (`emp machine revoke`), and it may not join with what it was given"
    if not seen_ms:
        return "it has not joined, or was stopped in good order"
    if may_be_alive(seen_ms, machine_id, desired, observed):
        return NOBODY_WAS_HEARD
    return "its box is off, or cannot reach Redis; emp cannot start it"


def _had_its_time(instance: Instance | None, machine: DesiredMachine, desired: Desired, observed: Observed) -> bool:
    """Whether the silence of a machine is its own, not ours."""
    return instance is None or is_young(instance, observed) or not is_booting(machine, desired, observed)


def _outdated(machine: DesiredMachine, instance: Instance) -> tuple[Kind, str, str, str] | None:
    """What a machine is made from otherwise than it should be."""
    wanted = container_hash(machine)
    if instance.container != wanted:
        want, got = (f"container {m}" if m else "no container" for m in (wanted, instance.container))
        others = "only a new container changes its image, host, devices, ports or limits"
        return Kind.CONTAINER_OUTDATED, want, got, others if wanted and instance.container else "its runtime is another"
    image = machine.container.image_id if machine.container is not None else ""
    if machine.container is not None and instance.image and image not in ("", instance.image):
        why = another_image(machine.container.image, instance.image, image)
        return Kind.CONTAINER_OUTDATED, short_id(image), short_id(instance.image), why
    return None


def _by_its_engine(
    machine: DesiredMachine, engine: ContainerState, *, is_heard: bool
) -> tuple[Kind, str, str, str] | None:
    """What is wrong with a machine's container by what its engine says, whatever was heard from inside."""
    got = container_state.in_short(engine)
    if engine.word == container_state.PAUSED:
        why = f"somebody paused its container {engine.name}: nothing in it runs on"
        return Kind.CONTAINER_PAUSED, container_state.RUNNING, got, why
    if missing := unmounted(machine, engine.mounts):
        why = f"its container {engine.name} was made without {', '.join(missing)}"
        return Kind.CONTAINER_OUTDATED, "all its volumes", f"without {', '.join(missing)}", why
    if engine.cut_off:
        why = f"somebody took its container {engine.name} out of network {engine.cut_off}: it reaches nobody"
        return Kind.CONTAINER_CUT_OFF, f"in network {engine.cut_off}", "cut off", why
    restarting = engine.word == container_state.RESTARTING
    if container_state.is_looping(engine) and (restarting or not is_heard):
        return Kind.CONTAINER_LOOPING, container_state.RUNNING, got, container_state.looping(engine)
    # What is heard of it is its former life's.
    return (Kind.MACHINE_BOOTING, "reporting", got, container_state.told(engine)) if restarting else None


def _whole_machine(
    machine: DesiredMachine, instance: Instance | None, desired: Desired, observed: Observed, unread_ms: int | None
) -> Drift | None:
    """Drift of the machine as a whole, which hides all that is inside it.

    `unread_ms` is when a machine was last heard whose report cannot be read.
    """
    seen = observed.machines.get(machine.id)
    seen_ms = seen.seen_ms if seen else unread_ms

    def drift(kind: Kind, want: str, got: str, cause: str) -> Drift:
        return Drift(
            kind=kind,
            machine_id=machine.id,
            subject=machine.id,
            desired=want,
            observed=got,
            cause=cause,
            origin=machine.origin,
            seen_ms=seen_ms,
            began_ms=seen_ms or None if kind in (Kind.MACHINE_STALE, Kind.MACHINE_AWAY) else None,
        )

    if instance is not None and instance.state is InstanceState.GONE:
        return drift(Kind.MACHINE_MISSING, "running", "not running", instance.detail or "its supervisord does not run")
    seen_now = instance is not None and instance.state is not InstanceState.UNKNOWN
    now = live_report(machine, desired, observed)
    # What it is made from shows whether it says anything or not: one that crashes never will. Only where nobody could
    # be heard it may be at work.
    told = now is not None or _had_its_time(instance, machine, desired, observed)
    runs = instance is not None and instance.state is InstanceState.RUNNING
    if instance is not None and runs and told and (wrong := _outdated(machine, instance)) is not None:
        return drift(*wrong)
    engine = instance.engine if instance is not None and seen_now else None
    if engine is not None and (wrong := _by_its_engine(machine, engine, is_heard=now is not None)) is not None:
        return drift(*wrong)
    if now is None and machine.id in desired.members:
        return silent_member(machine, seen_ms, desired, observed)
    if now is None:
        silent = f"last report {age(observed.now_ms - seen_ms)} ago" if seen_ms else "not reporting yet"
        if not machine.traits.seen:
            return drift(Kind.MACHINE_AWAY, "reporting", silent, _why_away(machine.id, seen_ms, desired, observed))
        if instance is None or instance.state is InstanceState.UNKNOWN:
            why = instance.detail if instance and instance.detail else "no runtime here can tell whether it runs"
            return drift(Kind.MACHINE_UNREACHABLE, "reporting", silent, why)
        if is_booting(machine, desired, observed):
            young = is_young(instance, observed)
            why = container_state.told(engine) if engine is not None else ""
            why = why or ("its supervisord has just been started" if young else NOBODY_WAS_HEARD)
            return drift(Kind.MACHINE_BOOTING, "reporting", silent, why)
        if seen is not None and (rival := overwritten(seen, instance, desired, observed)):
            return drift(Kind.MACHINE_CONFLICT, "one agent", f"also {rival}", TWO_AGENTS)
        why = container_state.told(engine) if engine is not None else ""
        return drift(Kind.MACHINE_STALE, "reporting", silent, why or "its agent hangs or cannot reach Redis")
    report = now.report
    digest = desired.digests[machine.id]
    if report.config_hash != digest:
        got = f"{report.config_hash or 'none'} (generation {report.generation})"
        return drift(Kind.CONFIG_BEHIND, f"{digest} (generation {desired.generation})", got, "configuration changed")
    begins = report.status in (MachineStatus.STARTING, MachineStatus.CONFIGURING)
    # With an error it has come as far as it can by itself: what keeps it shows in its programs.
    if report.status is not MachineStatus.READY and not (begins and report.error):
        return _starting(machine, now, observed.now_ms)
    if report.generation < desired.generation:
        return drift(
            Kind.GENERATION_BEHIND,
            f"generation {desired.generation}",
            f"generation {report.generation}",
            "a newer generation was applied; nothing it runs has changed",
        )
    return None
