"""How far emp may go by itself: the bounds of `reconcile:` in emp.yaml, in milliseconds."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.model.fleet import ReconcileSpec


class Limits(Struct, frozen=True, kw_only=True):
    """`program_budget` tries of one program, `machine_budget` restarts of one machine, each within `window_ms`.

    `stuck_ms`: how long a run may go on that was interrupted, before its service is restarted.
    """

    program_budget: int
    machine_budget: int
    window_ms: int
    breaker_share: float
    breaker_window_ms: int
    breaker_probe_ms: int
    min_healthy_ms: int
    progress_deadline_ms: int
    rollback: bool
    stuck_ms: int


def limits_of(spec: ReconcileSpec) -> Limits:
    budget, breaker, rollout = spec.budget, spec.breaker, spec.rollout
    return Limits(
        program_budget=budget.program,
        machine_budget=budget.machine,
        window_ms=int(budget.window_s * 1000),
        breaker_share=breaker.share,
        breaker_window_ms=int(breaker.window_s * 1000),
        breaker_probe_ms=int(breaker.probe_s * 1000),
        min_healthy_ms=int(rollout.min_healthy_s * 1000),
        progress_deadline_ms=int(rollout.progress_deadline_s * 1000),
        rollback=rollout.rollback,
        stuck_ms=int(spec.stuck_after_s * 1000),
    )
