"""What a job asks of a worker, whether a worker satisfies it, and the lane of jobs that ask the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct


class Hardware(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Minimums; `gpu_model` must be equal (case aside). Compared with `capabilities["hardware"]`."""

    gpu_memory_gb: float | None = None
    gpu_count: int | None = None
    cpu_cores: int | None = None
    ram_gb: float | None = None
    gpu_model: str | None = None


class Requirements(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`positive` must hold of a worker's capabilities, `negative` must not; each works alone.

    A wanted list: the worker has all of it (negative: any of it). A wanted number: the worker has at least
    that. Anything else: equal. A capability that is a list holds a wanted single value when it contains it.
    """

    service: str
    hardware: Hardware = Hardware()
    positive: dict[str, Any] = {}
    negative: dict[str, Any] = {}


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _single(wanted: object, found: object) -> bool:
    if isinstance(found, list | tuple):
        return wanted in found
    if _is_number(wanted):
        return _is_number(found) and found >= wanted  # type: ignore[operator]  # both are numbers
    # 1 == True in Python, not in a capability.
    return isinstance(wanted, bool) == isinstance(found, bool) and wanted == found


def _holds(wanted: object, found: object) -> bool:
    if isinstance(wanted, list | tuple):
        have = _listed(found)
        return all(item in have for item in wanted)
    return _single(wanted, found)


def _touches(unwanted: object, found: object) -> bool:
    if isinstance(unwanted, list | tuple):
        have = _listed(found)
        return any(item in have for item in unwanted)
    return _single(unwanted, found)


def _hardware_reasons(wanted: Hardware, capabilities: Mapping[str, Any]) -> list[str]:
    found = capabilities.get("hardware")
    hardware: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    reasons = []
    for name in ("gpu_memory_gb", "gpu_count", "cpu_cores", "ram_gb"):
        minimum = getattr(wanted, name)
        value = hardware.get(name)
        if minimum is not None and not _single(minimum, value):
            has = "the worker does not say what it has" if value is None else f"the worker has {value}"
            reasons.append(f"hardware.{name}: at least {minimum:g} is needed, {has}")
    model = hardware.get("gpu_model")
    if wanted.gpu_model is not None and str(model).casefold() != wanted.gpu_model.casefold():
        reasons.append(f"hardware.gpu_model: {wanted.gpu_model!r} is needed, the worker has {model!r}")
    return reasons


def unmet(requirements: Requirements, capabilities: Mapping[str, Any]) -> tuple[str, ...]:
    """Every requirement that a worker with `capabilities` does not satisfy, in words; empty when it may run the job."""
    services = _listed(capabilities.get("services", []))
    reasons: list[str] = []
    if requirements.service not in services:
        offered = ", ".join(str(s) for s in services) or "nothing"
        reasons.append(f"service {requirements.service!r} is needed, the worker offers {offered}")
    reasons += _hardware_reasons(requirements.hardware, capabilities)
    for name, wanted in requirements.positive.items():
        if name not in capabilities:
            reasons.append(f"{name}: {wanted!r} is needed, the worker does not have it")
        elif not _holds(wanted, capabilities[name]):
            reasons.append(f"{name}: {wanted!r} is needed, the worker has {capabilities[name]!r}")
    for name, unwanted in requirements.negative.items():
        if name in capabilities and _touches(unwanted, capabilities[name]):
            reasons.append(f"{name}: {unwanted!r} is ruled out, the worker has {capabilities[name]!r}")
    return tuple(reasons)


def canonical(requirements: Requirements) -> bytes:
    """One text for equal requirements, whatever the order of their keys."""
    return msgspec.json.encode(requirements, order="deterministic")


def lane_of(requirements: Requirements) -> str:
    """The signature of the lane for these requirements: 16 hexadecimal digits."""
    return hashlib.sha256(canonical(requirements)).hexdigest()[:16]
