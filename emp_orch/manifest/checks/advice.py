"""What an emp.yaml that is valid may not mean: notes, each on a line with its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from emp_orch.fleet.model.fleet import Fleet
from emp_orch.manifest.checks import comfyui, inherits, shell


def notes(fleet: Fleet) -> Iterator[str]:
    """What is worth a second look, without a look at any host."""
    yield from comfyui.notes(fleet)
    yield from shell.notes(fleet)


def notes_of_shell(fleet: Fleet, environ: Mapping[str, str], *, known: Collection[str]) -> Iterator[str]:
    """What is worth a second look where the fleet is applied from `environ`; variables `known` can be inherited."""
    yield from inherits.notes_unset(fleet, known)
    yield from inherits.notes_missed(fleet, environ)
