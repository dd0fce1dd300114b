"""Checks of the checkouts of ComfyUI that this host's machines start: whole, and their interpreter has what they need.

Asked cheaply: packages are looked up, not imported, since torch alone takes seconds.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from emp_orch.comfyui import slot
from emp_orch.comfyui.checkout import Checkout, NotUsable, look
from emp_orch.control.doctor.model import Check, Group, Level, Problem
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Machine, Origin, RuntimeKind, Scale, Service, ServiceName

if TYPE_CHECKING:
    from emp_orch.control.doctor.facts.gather import Facts

# Less than facts.DEADLINE_S, so that it is known of which interpreter there is no answer.
ASK_S = 2.0
_MAX_REQUIREMENTS = 200
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
# What the interpreter of a checkout is asked: which of the names on its stdin it does not have.
_ASKED = """
import importlib.metadata as m, importlib.util as u, json, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return ""
missing = [name for name in json.load(sys.stdin) if not version(name)]
print(json.dumps({"torch": (version("torch") or "?") if u.find_spec("torch") else "", "missing": missing}))
"""


class Packages(Struct, frozen=True, kw_only=True):
    """What an interpreter has: `torch` empty when it has none, `missing` of what requirements.txt names."""

    torch: str
    missing: tuple[str, ...]


class CheckoutFacts(Struct, frozen=True, kw_only=True):
    """The checkout of one service. `found` None: `trouble` says why. Else `packages` None: `trouble` says why.

    `slots`: the most that one machine has of it. `cuda`: a machine gives it GPUs, and its words do not refuse them.
    """

    service: ServiceName
    origin: Origin
    slots: int
    cuda: bool
    found: Checkout | None
    packages: Packages | None = None
    trouble: str = ""
    way_out: str = ""


async def checkout_facts(fleet: Fleet) -> tuple[CheckoutFacts, ...]:
    """Every checkout that this host's own machines start, all asked at once."""
    machines: dict[ServiceName, list[Machine]] = {}
    for machine in fleet.machines:
        if machine.runtime is RuntimeKind.PROCESS:
            for name in machine.services:
                machines.setdefault(name, []).append(machine)
    services = [s for name in machines if (s := fleet.services.get(name)) is not None and s.checkout is not None]
    return tuple(await asyncio.gather(*(asyncio.to_thread(_facts, s, machines[s.name]) for s in services)))


def _facts(service: Service, machines: list[Machine]) -> CheckoutFacts:
    asked = service.checkout
    assert asked is not None  # noqa: S101  # checkout_facts takes no others
    facts = CheckoutFacts(
        service=service.name,
        origin=service.origin,
        slots=max(m.num_gpus for m in machines) if service.scale is Scale.PER_GPU else 1,
        cuda="--cpu" not in asked.args and any(m.gpus.kind is GpuKind.NVIDIA for m in machines),
        found=None,
    )
    try:
        found = look(Path(asked.path), asked.python)
    except NotUsable as e:
        return msgspec.structs.replace(facts, trouble=e.message, way_out=e.hint)
    packages = _packages(found)
    if isinstance(packages, str):
        return msgspec.structs.replace(facts, found=found, trouble=packages)
    return msgspec.structs.replace(facts, found=found, packages=packages)


def _packages(found: Checkout) -> Packages | str:
    """What its interpreter has; in words why that cannot be known."""
    try:
        answer = subprocess.run(
            [str(found.python), "-c", _ASKED],
            input=msgspec.json.encode(_requirements(found)),
            capture_output=True,
            timeout=ASK_S,
            check=True,
            cwd="/",
            env=slot.environment(found, os.environ),
        )
        return msgspec.json.decode(answer.stdout, type=Packages)
    except subprocess.TimeoutExpired:
        return f"{found.python} gives no answer within {ASK_S:g} s"
    except subprocess.CalledProcessError as e:
        last = e.stderr.decode(errors="replace").strip().split("\n")[-1][:200]
        return f"{found.python} ends with status {e.returncode}: {last}"
    except OSError as e:
        return f"{found.python} cannot be run: {e.strerror}"
    except msgspec.MsgspecError:
        return f"{found.python} does not answer as a Python does"


def _requirements(found: Checkout) -> list[str]:
    """The packages that the checkout's requirements.txt names."""
    try:
        lines = (found.path / "requirements.txt").read_text(errors="replace").splitlines()[:_MAX_REQUIREMENTS]
    except OSError:
        return []
    return [match[0] for line in lines if (match := _REQUIREMENT.match(line))]


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
