"""GPUs that somebody else gave emp on a host: a scheduler, a container's runtime, a shell. docs/adr/0025.

Which variables say it, in the order in which the first one counts:

CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES: what programs themselves obey.
SLURM_STEP_GPUS, SLURM_JOB_GPUS, DOCKER_RESOURCE_*GPU*, NVIDIA_VISIBLE_DEVICES: what the allotter wrote down. Where
one of the former counts too, no more devices are taken than the latter allow.

Sources: CUDA Programming Guide, "CUDA Environment Variables"; ROCm, "GPU isolation techniques"; Slurm's sbatch(1),
"OUTPUT ENVIRONMENT VARIABLES"; Docker, "Use generic resources" of swarm services; NVIDIA Container Toolkit, "Docker
Specialized Configurations".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from emp_orch.plaintext import one_line

CUDA = "CUDA_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
ROCR = "ROCR_VISIBLE_DEVICES"
OBEYED = (CUDA, HIP, ROCR)
SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
NVIDIA = "NVIDIA_VISIBLE_DEVICES"
# Set beside a slot's devices: which slot it is.
SLOT = "EMP_GPU_SLOT"
# What hides all devices; an empty value does not everywhere.
NOTHING = "-1"

MAX_DEVICES = 256
_MAX_SHOWN = 120
_DOCKER = re.compile(r"DOCKER_RESOURCE_[A-Z0-9_-]*GPU[A-Z0-9_-]*\Z")
_INDEX = re.compile(r"[0-9]{1,4}\Z")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,100}\Z")
_RANGE = re.compile(r"([0-9]{1,4})-([0-9]{1,4})\Z")

Names = tuple[str, ...]


class Allotment(Struct, frozen=True, kw_only=True):
    """`said` names the variables and what they hold. `slots`: what the programs of slot 0, 1, … get in their
    environment; `beyond`: those of slots that there is no device for; `whole`: programs that are of no slot.

    `ids`: the devices as a container's runtime takes them, by UUID where the driver told them. `hosts`: the Docker
    hosts whose containers run on this host.
    """

    said: str
    slots: tuple[dict[str, str], ...]
    beyond: dict[str, str]
    whole: dict[str, str]
    ids: Names
    hosts: Names = ()

    def of_slot(self, slot: int) -> dict[str, str]:
        return self.slots[slot] if slot < len(self.slots) else self.beyond

    @property
    def names(self) -> Names:
        """The devices by the names that CUDA goes by."""
        return tuple(slot[CUDA] for slot in self.slots)


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of `environ` that say something of GPUs, in the order in which they count."""
    names = (*OBEYED, *SLURM, *sorted(n for n in environ if _DOCKER.match(n)), NVIDIA)
    return {n: environ[n] for n in names if n in environ and _says(n, environ[n])}


def _says(name: str, value: str) -> bool:
    if name in OBEYED:
        return True  # empty: none
    return bool(value.strip()) and (name != NVIDIA or value.strip() not in ("all", "void"))


def read(environ: Mapping[str, str], uuids: Callable[[], Names | None] = lambda: None) -> Allotment | None:
    """What `environ` allots; None when it says nothing of GPUs.

    `uuids` asks the driver for those of the GPUs that it shows, by index; None when there is no driver to ask.
    """
    found = variables(environ)
    if not found:
        return None
    known = uuids()
    written = {n: _written(n, v, known) for n, v in found.items() if n not in OBEYED}
    obeyed = {n: _obeyed(v) for n, v in found.items() if n in OBEYED}
    first = next(iter(found))
    names = obeyed[CUDA] if CUDA in obeyed else () if obeyed else written.pop(first)
    pairs = list(_slots(obeyed, names))
    said = _shown(first, found[first])
    for name, allowed in written.items():
        fewer = _within(pairs, allowed)
        if len(fewer) < len(pairs):
            pairs, said = fewer, f"{said}, of which {_shown(name, found[name])} allows {len(fewer)}"
    slots = tuple(pairs)
    devices = tuple(slot[CUDA] for slot in slots)
    return Allotment(
        said=said,
        slots=slots,
        beyond=dict.fromkeys((CUDA, *(n for n in (HIP, ROCR) if n in obeyed)), NOTHING),
        whole=_whole(found, devices, amd_only=bool(obeyed) and CUDA not in obeyed),
        ids=tuple(known[int(d)] if known and d.isdecimal() and int(d) < len(known) else d for d in devices),
    )


def _shown(name: str, value: str) -> str:
    text = one_line(value)
    return f"{name}={text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + '…'}"


def _obeyed(value: str) -> Names:
    """The devices that a program sees by such a variable: up to the first word that is none, and none at all where one
    stands twice. The first word says whether all are indices or UUIDs.
    """
    devices: list[str] = []
    kind: re.Pattern[str] | None = None
    for word in (part.strip() for part in value.split(",")):
        if kind is None:
            kind = _INDEX if _INDEX.match(word) else _UUID
        if not kind.match(word) or len(devices) == MAX_DEVICES:
            break
        device = str(int(word)) if kind is _INDEX else word
        if device in devices:
            return ()
        devices.append(device)
    return tuple(devices)


def _written(name: str, value: str, known: Names | None) -> Names:
    """The devices that an allotter wrote down.

    Its indices count the whole node's. Where the driver shows no more than it names, the others are hidden (a cgroup, a
    container), and those that are left are counted from 0.
    """
    text = value.strip()
    if text == "none":
        return ()
    if _DOCKER.match(name) and _INDEX.match(text):  # swarm counts a resource that has no names
        return tuple(str(n) for n in range(min(int(text), MAX_DEVICES)))
    devices = _obeyed(",".join(_unfolded(text)))
    if known is not None and len(known) <= len(devices) and all(d.isdecimal() for d in devices):
        return tuple(str(n) for n in range(len(devices)))
    return devices


def _unfolded(text: str) -> Iterator[str]:
    """The words of a list in which 0-3 stands for 0,1,2,3."""
    for word in text.split(","):
        if (found := _RANGE.match(word.strip())) and int(found[2]) - int(found[1]) < MAX_DEVICES:
            yield from map(str, range(int(found[1]), int(found[2]) + 1))
        else:
            yield word


def _slots(obeyed: Mapping[str, Names], names: Names) -> Iterator[dict[str, str]]:
    """What each slot's programs get: every variable that they obey, narrowed to the one device."""
    amd = list(_amd(obeyed))
    if not names and CUDA not in obeyed:
        yield from ({CUDA: one[HIP], **one} for one in amd)
        return
    hidden = {name: NOTHING for name in (HIP, ROCR) if name in obeyed}
    for n, name in enumerate(names):
        yield {CUDA: name, **(amd[n] if n < len(amd) else hidden)}


def _amd(obeyed: Mapping[str, Names]) -> Iterator[dict[str, str]]:
    """HIP counts what ROCR shows, and goes by CUDA's variable where it has none of its own."""
    rocr, hip = obeyed.get(ROCR), obeyed.get(HIP)
    if rocr is None:
        yield from ({HIP: device} for device in hip or ())
        return
    cuda = obeyed.get(CUDA, rocr)
    chosen = hip if hip is not None else cuda if cuda != rocr else None
    for index in chosen if chosen is not None else map(str, range(len(rocr))):
        if not index.isdecimal() or int(index) >= len(rocr):
            return
        yield {ROCR: rocr[int(index)], HIP: "0"}


def _within(slots: list[dict[str, str]], allowed: Names) -> list[dict[str, str]]:
    """Of `slots` those that an allotter allows: by name where both name by UUID, else as many."""
    if all(_UUID.match(name) for name in (*allowed, *(slot[CUDA] for slot in slots))):
        return [s for s in slots if any(a.startswith(s[CUDA]) or s[CUDA].startswith(a) for a in allowed)]
    return slots[: len(allowed)]


def _whole(found: Mapping[str, str], devices: Names, *, amd_only: bool) -> dict[str, str]:
    whole = {name: found[name] for name in (HIP, ROCR) if name in found}
    return whole if amd_only else {CUDA: ",".join(devices) or NOTHING, **whole}
