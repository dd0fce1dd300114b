"""Drift that stands beside a machine's programs and workers: what only a person can mend, or a restart as a whole."""

from __future__ import annotations

from emp_orch.fleet.desired.containers import short_id
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.exits import why_gone
from emp_orch.fleet.drift.kinds import CONTROL, Desired, Drift, Kind
from emp_orch.fleet.model.fleet import AGENT, ProgramName
from emp_orch.fleet.model.observed import Observed, ProgramState, SeenMachine
from emp_orch.fleet.model.package import Build, in_short

# supervisord is not at these: somebody must start them.
_DOWN = frozenset({ProgramState.FATAL, ProgramState.STOPPED, ProgramState.EXITED, ProgramState.UNKNOWN})

FORGED = "somebody who can write in Redis gave orders there; the machine refused them, and works on"
TWO_AGENTS = "two agents report as this machine; stop the one that does not belong"


def conflicts(machine: DesiredMachine, seen: SeenMachine, desired: Desired, observed: Observed) -> list[Drift]:
    """What a machine that reports says of itself, beyond its programs."""
    report = seen.report

    def drift(kind: Kind, want: str, got: str, cause: str, program: ProgramName | None = None) -> Drift:
        return Drift(
            kind=kind,
            machine_id=machine.id,
            subject=program or machine.id,
            desired=want,
            observed=got,
            cause=cause,
            origin=machine.origin,
            program=program,
        )

    found = []
    if report.rival:
        found.append(drift(Kind.MACHINE_CONFLICT, "one agent", f"also {report.rival}", TWO_AGENTS))
    if report.forged:
        found.append(drift(Kind.ORDERS_FORGED, "orders of its fleet", f"others {report.forged}", FORGED))
    # A box elsewhere may know Redis by another name.
    here = machine.traits.shares_host
    if here and desired.redis and report.redis and report.redis != desired.redis:
        why = "it was started before redis changed"
        found.append(drift(Kind.MACHINE_WRONG_REDIS, f"Redis at {desired.redis}", f"Redis at {report.redis}", why))
    if (wanted := _newer(machine, seen, desired, observed)) is not None and report.build is not None:
        want, why = f"emp {in_short(wanted.emp)}", "emp was changed since it was started"
        if report.build.supervision not in ("", wanted.supervision):
            got = "an older extension"
            found.append(drift(Kind.SUPERVISORD_OUTDATED, want, got, f"{why}, and with it what supervisord runs of it"))
        elif report.build.emp not in ("", wanted.emp):
            got = f"emp {in_short(report.build.emp)}"
            found.append(drift(Kind.AGENT_OUTDATED, want, got, why, AGENT))
    instance, wanted_in = observed.instances.get(machine.id), machine.container
    now = instance.engine.image_now if instance is not None and instance.engine is not None else ""
    if wanted_in is not None and now and wanted_in.image_id not in ("", now):
        why = "it was built or pulled anew since it was applied; `emp apply` goes over to it"
        got = f"{short_id(now)} by that name now"
        found.append(drift(Kind.IMAGE_MOVED, f"{wanted_in.image} ({short_id(wanted_in.image_id)})", got, why))
    if report.disk_error:
        found.append(drift(Kind.DISK_FULL, "room to write", "none", report.disk_error))
    if report.gpu_error:
        found.append(drift(Kind.GPU_LOST, "GPUs that work", "an error", report.gpu_error))
    if machine.needs_gpus and len(report.gpus) < machine.num_gpus:
        why = "its driver shows fewer than num_gpus"
        found.append(drift(Kind.GPU_MISSING, f"{machine.num_gpus} GPUs", f"{len(report.gpus)}", why))
    return found


# Who compares is a reconciler; one that its supervisord does not run was started by somebody who means it.
_OURSELVES = "reconcile"


def _newer(machine: DesiredMachine, seen: SeenMachine, desired: Desired, observed: Observed) -> Build | None:
    """The emp that a start here would give the machine, where that is the one applied, and known to run there."""
    package, installed = desired.package, observed.installed
    if not machine.traits.shares_host or installed is None or installed.emp != desired.emp:
        return None
    return installed if package is None or package.digest == seen.report.package else None


def control_plane(desired: Desired, observed: Observed) -> list[Drift]:
    """Parts of the control plane that do not run, and that its supervisord does not start by itself; whether all
    of the fleet runs another emp than this host has; and what stands in Redis that is not emp's.
    """
    return [*_damaged(observed), *_parts_down(observed), *_unapplied(desired, observed)]


def _damaged(observed: Observed) -> list[Drift]:
    return [
        Drift(
            kind=Kind.REDIS_DAMAGED,
            machine_id=CONTROL,
            subject=one.key,
            desired=one.expected,
            observed=one.found,
            cause="somebody else wrote it; nothing is done on account of what cannot be read there",
            origin="",
        )
        for one in sorted(observed.damaged, key=lambda d: d.key)
    ]


def _unapplied(desired: Desired, observed: Observed) -> list[Drift]:
    installed = observed.installed
    if not desired.emp or installed is None or installed.emp in ("", desired.emp):
        return []
    return [
        Drift(
            kind=Kind.EMP_OUTDATED,
            machine_id=CONTROL,
            subject="emp",
            desired=f"emp {in_short(desired.emp)}, as applied",
            observed=f"emp {in_short(installed.emp)} on this host",
            cause="emp was changed here; what runs has the old one still: `emp apply` takes it over",
            origin="",
        )
    ]


def _parts_down(observed: Observed) -> list[Drift]:
    return [
        Drift(
            kind=Kind.CONTROL_DOWN,
            machine_id=CONTROL,
            subject=name,
            desired="RUNNING",
            observed=part.state,
            cause=why_gone(part) or part.detail or "it was stopped, or supervisord gave up",
            origin="",
            program=ProgramName(name),
        )
        for name, part in sorted(observed.parts.items())
        if part.state in _DOWN and name != _OURSELVES
    ]
