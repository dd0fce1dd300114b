"""Checks of the checkouts of ComfyUI that this host's machines start: whole, with what they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emp_orch.comfyui.checkout import Checkout
from emp_orch.control.doctor.facts.checkouts import CheckoutFacts, Packages
from emp_orch.control.doctor.model import Check, Group, Level, Problem

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts


def _find(facts: Facts) -> Iterator[Problem]:
    for one in facts.checkouts:
        if one.found is None:
            yield Problem(what=f"{one.service} cannot start: {one.trouble}", fix=one.way_out, where=one.origin)
            continue
        for option, why in one.found.lacks.items() if one.slots > 1 else ():
            yield Problem(
                what=f"the ComfyUI of {one.service} knows no {option}: {why}",
                fix="update the checkout",
                where=one.origin,
                level=Level.WARN,
            )
        if one.packages is None:
            yield Problem(what=one.trouble, fix=f"try: {one.found.python} -V", where=one.origin, level=Level.WARN)
        else:
            yield from _lacking(one, one.found, one.packages)


def _lacking(one: CheckoutFacts, found: Checkout, packages: Packages) -> Iterator[Problem]:
    pip = f"{found.python} -m pip install"
    torch = f"{pip} torch torchvision torchaudio, from the index that ComfyUI's README names for your GPU"
    if not packages.torch:
        yield Problem(what=f"{found.python} has no torch, and {one.service} needs it", fix=torch, where=one.origin)
    elif one.cuda and packages.torch.endswith("+cpu"):
        what = f"the torch of {one.service} ({packages.torch}) cannot use the GPUs that its machine has"
        yield Problem(what=what, fix=torch, where=one.origin)
    missing = [name for name in packages.missing if name != "torch"]
    if missing:
        yield Problem(
            what=f"{found.python} lacks {', '.join(missing)} of {found.path}/requirements.txt",
            fix=f"{pip} -r {found.path}/requirements.txt",
            where=one.origin,
            level=Level.WARN,
        )


def _fine(facts: Facts) -> str:
    told = [
        f"ComfyUI {one.found.version} in {one.found.path}, torch {one.packages.torch}"
        for one in facts.checkouts
        if one.found is not None and one.packages is not None
    ]
    return "; ".join(told)


CHECKS = (Check(name="comfyui", group=Group.MACHINES, fine=_fine, find=_find),)
