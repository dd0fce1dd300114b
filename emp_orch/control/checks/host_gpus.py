"""The GPUs of this host that an apply may use: what its environment allots, or what is on record. docs/adr/0025."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from emp_orch.control.host import generation as generations
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.errors import EmpError, UsageError
from emp_orch.fleet.desired.slots_of_allotment import lacking
from emp_orch.fleet.model import allotment
from emp_orch.fleet.model.allotment import Allotment
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.host import gpus
from emp_orch.layout import Layout
from emp_orch.settings import EngineAddress


def allotted_here(layout: Layout, environ: Mapping[str, str], hosts: tuple[EngineAddress, ...]) -> Allotment | None:
    """What `environ` says; where it says nothing and the fleet is up, what it was brought up with.

    So an apply from another terminal takes nobody's GPUs, and after `emp down` begins anew.
    """
    given = allotment.read(environ, gpus.uuids)
    if given is not None:
        return structs.replace(given, hosts=tuple(h.name for h in hosts if h.here))
    if plane_of(layout).identity() is None:
        return None
    try:
        kept = generations.kept(layout)
    except EmpError:  # damaged: the next apply writes it anew
        return None
    return kept.fleet.allotment if kept is not None else None


def refuse_too_few(fleet: Fleet) -> None:
    """Raise UsageError for machines that ask for more GPUs, or others, than are allotted; all of them at once."""
    wrong = [(m, why) for m in fleet.machines if (why := lacking(fleet, m))]
    if wrong:
        raise UsageError(
            "\n".join(f"{m.origin}: {why}" for m, why in wrong),
            hint="ask whoever allots them for more, or change num_gpus or gpus.ids; docs/operating.md, GPUs that"
            " somebody else allots",
        )


def refuse_other_gpus(recorded: Allotment | None, environ: Mapping[str, str]) -> None:
    """Raise UsageError where `environ` gives other GPUs than those on record, which are about to be used."""
    now = allotment.read(environ, gpus.uuids)
    if now is not None and (recorded is None or now.slots != recorded.slots):
        raise UsageError(
            f"this shell was given other GPUs ({in_words(now)}) than the generation in force ({in_words(recorded)})",
            hint="`emp apply` takes those of this shell",
        )


def in_words(given: Allotment | None) -> str:
    """`CUDA_VISIBLE_DEVICES=2,3: GPUs 2, 3`."""
    if given is None:
        return "all that are there"
    names = ", ".join(given.names)
    return f"{given.said}: slot 0, 1, … are {names}" if names else f"{given.said}: none"
