"""What an emp.yaml that is valid may not mean: notes, each on a line with its place."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.fleet.model import Fleet
from emp_orch.spec import comfyui, shell


def notes(fleet: Fleet) -> Iterator[str]:
    """What is worth a second look, without a look at any host."""
    yield from comfyui.notes(fleet)
    yield from shell.notes(fleet)
