"""What `emp journal --replay` says of each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emp_orch.cli.output.journal_text import moment
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.control.status.replay import Verdict


def lines(v: Verdict) -> list[str]:
    """One line for a round, and below it what differs."""
    head = f"{moment(v.at_ms)}  "
    if v.same is None:
        return [one_line(f"{head}cannot be read: emp {v.version or 'of an older version'} wrote it")]
    begun = ", ".join(v.begun)
    head += f"{'same' if v.same else 'DIFFERS'}  generation {v.generation}, {v.drift} differences, begun: {begun}"
    found = [f"    then  {t}" for t in v.only_then] + [f"    now   {t}" for t in v.only_now]
    if not v.same and not found:
        found = ["    the same operations in another order"]
    return [one_line(text) for text in (head, *found)]


def summary(verdicts: Sequence[Verdict]) -> str:
    same = sum(v.same is True for v in verdicts)
    unread = sum(v.same is None for v in verdicts)
    differ = len(verdicts) - same - unread
    parts = [f"{same} of {len(verdicts)} rounds the same"]
    parts += [f"{differ} DIFFER"] if differ else []
    parts += [f"{unread} cannot be read by this version"] if unread else []
    return ", ".join(parts)
