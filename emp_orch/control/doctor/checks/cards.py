"""Check of what emp.yaml says of GPUs beside the cards of this host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emp_orch.control.doctor.model import Check, Group, Level, Problem

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts


def _find(facts: Facts) -> Iterator[Problem]:
    for note in facts.cards:
        fix = "change gpus or num_gpus in emp.yaml, or look at nvidia-smi"
        yield Problem(what=note.text, fix=fix, where=note.origin, level=Level.WARN)


CHECKS = (Check(name="gpus", group=Group.MACHINES, fine=lambda _: "", find=_find),)
