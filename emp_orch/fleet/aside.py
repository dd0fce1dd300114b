"""Drift that stands beside a machine's programs and workers: what only a person can mend, or a restart as a whole."""

from __future__ import annotations

from emp_orch.fleet.desired import DesiredMachine
from emp_orch.fleet.ends import why_gone
from emp_orch.fleet.kinds import CONTROL, Desired, Drift, Kind
from emp_orch.fleet.model import ProgramName, RuntimeKind
from emp_orch.fleet.observed import Observed, ProgramState, SeenMachine

# supervisord is not at these: somebody must start them.
_DOWN = frozenset({ProgramState.FATAL, ProgramState.STOPPED, ProgramState.EXITED, ProgramState.UNKNOWN})

TWO_AGENTS = "two agents report as this machine; stop the one that does not belong"


def beside(machine: DesiredMachine, seen: SeenMachine, desired: Desired) -> list[Drift]:
    """What a machine that reports says of itself, beyond its programs."""
    report = seen.report

    def drift(kind: Kind, want: str, got: str, cause: str) -> Drift:
        return Drift(
            kind=kind,
            machine_id=machine.id,
            subject=machine.id,
            desired=want,
            observed=got,
            cause=cause,
            origin=machine.origin,
        )

    found = []
    if report.rival:
        found.append(drift(Kind.MACHINE_CONFLICT, "one agent", f"also {report.rival}", TWO_AGENTS))
    # A box elsewhere may know Redis by another name.
    here = machine.runtime is RuntimeKind.PROCESS
    if here and desired.redis and report.redis and report.redis != desired.redis:
        why = "it was started before redis changed"
        found.append(drift(Kind.MACHINE_WRONG_REDIS, f"Redis at {desired.redis}", f"Redis at {report.redis}", why))
    if report.gpu_error:
        found.append(drift(Kind.GPU_LOST, "GPUs that work", "an error", report.gpu_error))
    if machine.needs_gpus and len(report.gpus) < machine.num_gpus:
        why = "its driver shows fewer than num_gpus"
        found.append(drift(Kind.GPU_MISSING, f"{machine.num_gpus} GPUs", f"{len(report.gpus)}", why))
    return found


# Who compares is a reconciler; one that its supervisord does not run was started by somebody who means it.
_OURSELVES = "reconcile"


def control_plane(observed: Observed) -> list[Drift]:
    """Parts of the control plane that do not run, and that its supervisord does not start by itself."""
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
