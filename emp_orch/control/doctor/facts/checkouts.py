"""What the checkouts of ComfyUI that this host's machines start are, and what their interpreters have.

Asked cheaply: packages are looked up, not imported, since torch alone takes seconds.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.comfyui import slot
from emp_orch.comfyui.checkout import Checkout, NotUsable, look
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Machine, Origin, Scale, Service, ServiceName

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
        if machine.traits.shares_host:
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
