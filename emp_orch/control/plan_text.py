"""What an apply would do, in lines for a person to read before saying yes."""

from __future__ import annotations

from emp_orch.control.preview import Preview
from emp_orch.control.proposal import Proposal
from emp_orch.fleet.plan import Effect, MachineChange

_SIGN = {Effect.START: "+", Effect.IN_PLACE: "~", Effect.RESTART: "↻", Effect.REMOVE: "-"}


def plan_lines(proposal: Proposal, seen: Preview) -> list[str]:
    """The plan: which generation follows which, then what becomes of the control plane, each machine and secret."""
    follows = seen.number + (0 if seen.same else 1)
    lines = [f"fleet {proposal.fleet.name}: generation {seen.number} → {follows}"]
    if not seen.plane_runs:
        embedded = "Redis, " if proposal.settings.embedded else ""
        lines.append(f"  + control plane  (start): {embedded}API, monitor, reconciler, event log")
    elif seen.settings_change:
        lines.append("  ↻ control plane  (restart): its settings change; machines run on")
    for change in seen.changes:
        lines += _of_machine(change, proposal.source)
    for ref in seen.rotated:
        lines.append(f"  ~ secret {ref} has another value: programs get it when they start again (emp restart)")
    if not seen.changes and not seen.rotated and seen.plane_runs:
        lines.append("  nothing changes on any machine")
    return lines


def _of_machine(change: MachineChange, source: str) -> list[str]:
    origin = change.origin if source == "emp.yaml" or not change.origin else f"{change.origin} of {source}"
    where = f"  [{origin}]" if origin else ""
    lines = [f"  {_SIGN[change.effect]} {change.machine_id}  ({change.effect}): {change.why}{where}"]
    for sign, names in (("+", change.added), ("-", change.removed), ("↻", change.changed)):
        if names:
            lines.append(f"      {sign} {', '.join(names)}")
    if change.kept:
        lines.append(f"      = {len(change.kept)} programs run on untouched")
    return lines
