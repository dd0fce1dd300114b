"""What an apply would do, in lines for a person to read before saying yes."""

from __future__ import annotations

from collections.abc import Sequence

from emp_orch.control.apply.token_text import token_lines
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.control.plane.supervisord_plane import Age
from emp_orch.fleet.desired.inherits import InheritChange
from emp_orch.fleet.plan.operations import Effect, MachineChange

_SIGN = {Effect.START: "+", Effect.IN_PLACE: "~", Effect.RESTART: "↻", Effect.RECREATE: "±", Effect.REMOVE: "-"}


def plan_lines(proposal: Proposal, seen: Preview) -> list[str]:
    """The plan: which generation follows which, then what becomes of the control plane, each machine and secret."""
    follows = seen.number + (0 if seen.same else 1)
    lines = [f"fleet {proposal.fleet.name}: generation {seen.number} → {follows}"]
    if not seen.plane_runs:
        embedded = "Redis, " if proposal.settings.embedded else ""
        lines.append(f"  + control plane  (start): {embedded}API, monitor, reconciler, event log")
    elif seen.settings_change:
        lines.append("  ↻ control plane  (restart): its settings change; machines run on")
        if seen.running is not None:
            lines += [f"      {line}" for line in token_lines(seen.running, proposal.settings)]
    elif seen.plane_age is not Age.NEW:
        kept = "Redis and machines run on" if seen.plane_age is Age.ITS_PARTS_OLD else "machines run on"
        lines.append(f"  ↻ control plane  (restart): it runs another emp than this one; {kept}")
    if seen.gpus:
        lines.append(f"  GPUs of this host: {seen.gpus}")
    for change in seen.changes:
        lines += _of_machine(change, proposal.source)
    lines += [f"  {line}" for line in seen.pools]
    if seen.other_package:
        lines.append("  ↻ workers  (restart): they get another version of emp's modules, each once it is drained")
    if seen.other_emp:
        lines.append("  ↻ agents  (restart): they are of another emp; what they look after runs on")
    for ref in seen.rotated:
        if ref in proposal.secrets:
            lines.append(f"  ~ secret {ref} has another value: programs get it when they start again (emp restart)")
        else:
            lines.append(f"  ~ {ref} is not set any more: programs run without it when they start again (emp restart)")
    plane_stays = seen.plane_runs and seen.plane_age is Age.NEW
    if plane_stays and not (seen.changes or seen.pools or seen.rotated or seen.other_package or seen.other_emp):
        lines.append("  nothing changes on any machine")
    return lines


def _of_machine(change: MachineChange, source: str) -> list[str]:
    origin = change.origin if source == "emp.yaml" or not change.origin else f"{change.origin} of {source}"
    where = f"  [{origin}]" if origin else ""
    lines = [f"  {_SIGN[change.effect]} {change.machine_id}  ({change.effect}): {change.why}{where}"]
    for sign, names in (("+", change.added), ("-", change.removed), ("↻", change.changed)):
        if names:
            lines.append(f"      {sign} {', '.join(_in_short(names))}")
    lines += [f"      ~ {_inherits(one)}" for one in change.inherits]
    if change.kept:
        lines.append(f"      = {len(change.kept)} programs run on untouched")
    return lines


def _inherits(change: InheritChange) -> str:
    one = len(change.programs) == 1
    parts = [f"{'inherits' if one else 'inherit'} {', '.join(change.more)}"] if change.more else []
    parts += [f"no longer {'inherits' if one else 'inherit'} {', '.join(change.less)}"] if change.less else []
    return f"{', '.join(_in_short(change.programs))} {' and '.join(parts)}"


def _in_short(names: Sequence[str]) -> list[str]:
    """`names` with what counts up in one word: comfyui-gpu2…63."""
    runs: list[tuple[str, int, int]] = []  # stem, first, last; a name without a number is its own stem
    for name in names:
        stem = name.rstrip("0123456789")
        digits = name[len(stem) :]
        counts = digits.isdecimal() and str(int(digits)) == digits  # 01 would come back as 1
        stem, number = (stem, int(digits)) if counts else (name, -1)
        if runs and number > 0 and runs[-1][0] == stem and runs[-1][2] == number - 1:
            runs[-1] = (stem, runs[-1][1], number)
        else:
            runs.append((stem, number, number))
    return [word for run in runs for word in _words(*run)]


def _words(stem: str, first: int, last: int) -> list[str]:
    if last - first >= 2:
        return [f"{stem}{first}…{last}"]
    return [stem if number < 0 else f"{stem}{number}" for number in range(first, last + 1)]
