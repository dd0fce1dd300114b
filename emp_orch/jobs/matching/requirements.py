"""What a job asks of a worker, whether a worker satisfies it, and the lane of jobs that ask the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from emp_orch.jobs.matching.capability import holds, is_number, shown, touches
from emp_orch.jobs.matching.isolation import Isolation, customer_reason, workflow_reason
from emp_orch.jobs.matching.offers import MAX_NAME, SERVICE_OFFERS, Needs, Offers, both, lacking, offers_of

MAX_REQUIRED_MODELS = 256
MAX_GPU_MODELS = 32
MAX_CUSTOM = 64
MAX_AMOUNT = 1_000_000_000

# No control characters: names are shown in terminals and logs.
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Amount = Annotated[float, Meta(ge=0, le=MAX_AMOUNT)]
Count = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
Custom = Annotated[dict[Name, Any], Meta(max_length=MAX_CUSTOM)]

# Second names of minimums, for the job and for the worker.
HARDWARE_ALIASES = {"cpu": "cpu_cores", "ram": "ram_gb"}
_MINIMUMS = {"gpu_memory_gb": "", "gpu_count": "", "cpu_cores": "cpu", "ram_gb": "ram"}


class Hardware(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Minimums, compared with `capabilities["hardware"]`. GB are 10^9 bytes.

    `gpu_model`: its words stand in a row in the worker's model, case aside (`A100` fits `NVIDIA A100-SXM4-80GB`);
    of a list, one does.
    """

    gpu_memory_gb: Amount | None = None
    gpu_count: Count | None = None
    cpu_cores: Count | None = None
    ram_gb: Amount | None = None
    gpu_model: Name | Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_GPU_MODELS)] | None = None


_NONE: Mapping[str, str] = {}
_NO_OFFERS: Mapping[str, Offers] = {}
_NO_HARDWARE = Hardware()


class Requirements(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a worker must offer. Each field works alone; `service` is always asked.

    `models`: the worker has all of them. `customer`, `isolation` and `workflow`: see isolation.py.
    `needs`: what emp found in the workflow and some worker lacked (offers.py); who does not tell what it has may try.
    `positive` must hold of a worker's capabilities, `negative` must not:
    a wanted list: the worker has all of it (negative: any of it). A wanted number: the worker has at least
    that. Anything else: equal. A capability that is a list holds a wanted single value when it contains it.
    """

    service: str
    hardware: Hardware = _NO_HARDWARE
    models: Annotated[tuple[Name, ...], Meta(max_length=MAX_REQUIRED_MODELS)] = ()
    customer: Name | None = None
    isolation: Isolation = Isolation.LOOSE
    workflow: Name | None = None
    positive: Custom = {}
    negative: Custom = {}
    needs: Needs | None = None

    def __post_init__(self) -> None:
        if self.isolation is Isolation.STRICT and self.customer is None:
            raise ValueError("isolation: strict needs a customer, for whom the worker is kept")


@lru_cache(maxsize=512)  # few models, asked again for each lane and worker
def _words(model: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in model.casefold()).split())


def _is_model(wanted: str, found: str) -> bool:
    ours, theirs = _words(wanted), _words(found)
    if not ours:  # a name without a letter or digit
        return wanted.casefold() == found.casefold()
    return any(theirs[i : i + len(ours)] == ours for i in range(len(theirs) - len(ours) + 1))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _hardware_reasons(wanted: Hardware, capabilities: Mapping[str, Any], *, open_ended: bool) -> Iterator[str]:
    """`open_ended`: what the worker does not say may still turn out well."""
    found = capabilities.get("hardware", {})
    if not isinstance(found, Mapping):
        yield f"hardware: some is needed, the worker has {shown(found)} where an object is expected"
        return
    for name, alias in _MINIMUMS.items():
        minimum = getattr(wanted, name)
        if minimum is None:
            continue
        value = found.get(name, found.get(alias))
        if value is None:
            if not open_ended:
                yield f"hardware.{name}: at least {_number(minimum)} is needed, the worker does not say what it has"
        elif not is_number(value):
            yield (
                f"hardware.{name}: at least {_number(minimum)} is needed, "
                f"the worker has {shown(value)}, which is no number"
            )
        elif value < minimum:
            yield f"hardware.{name}: at least {_number(minimum)} is needed, the worker has {shown(value)}"
    if wanted.gpu_model is None:
        return
    models = (wanted.gpu_model,) if isinstance(wanted.gpu_model, str) else wanted.gpu_model
    asked = " or ".join(shown(m) for m in models)
    model = found.get("gpu_model")
    if model is None:
        if not open_ended:
            yield f"hardware.gpu_model: {asked} is needed, the worker does not say what it has"
    elif not (isinstance(model, str) and any(_is_model(m, model) for m in models)):
        yield f"hardware.gpu_model: {asked} is needed, the worker has {shown(model)}"


def _model_reason(
    wanted: tuple[str, ...], service: str, capabilities: Mapping[str, Any], offers: Mapping[str, Offers]
) -> str | None:
    """The worker's own list counts; without one, what its service says."""
    if "models" not in capabilities:
        told = offers_of(service, capabilities, offers)
        if told is None:
            return f"models: {shown(list(wanted))} is needed, the worker does not say what it has"
        missing = [name for name in wanted if name not in told.models]
        return f"models: {shown(missing)} is needed, the worker does not have it" if missing else None
    found = capabilities["models"]
    if not isinstance(found, list | tuple):
        return f"models: {shown(list(wanted))} is needed, the worker has {shown(found)}, which is no list"
    missing = [name for name in wanted if name not in found]
    return f"models: {shown(missing)} is needed, the worker has {shown(found)}" if missing else None


def _service_reason(service: str, capabilities: Mapping[str, Any], unloaded: Mapping[str, str]) -> str | None:
    services = capabilities.get("services", ())
    if not isinstance(services, list | tuple):
        return f"service {service!r} is needed, the worker's services are {shown(services)}, which is no list"
    if service in services:
        return None
    if service in unloaded:
        return f"service {service!r} is needed, the worker cannot use it: {unloaded[service]}"
    offered = ", ".join(str(s) if isinstance(s, str) else shown(s) for s in services[:12]) or "nothing"
    return f"service {service!r} is needed, the worker offers {offered}{', …' if len(services) > 12 else ''}"


def unmet(
    requirements: Requirements,
    capabilities: Mapping[str, Any],
    *,
    open_hardware: bool = False,
    unloaded: Mapping[str, str] = _NONE,
    offers: Mapping[str, Offers] = _NO_OFFERS,
) -> tuple[str, ...]:
    """Every requirement that a worker with `capabilities` does not satisfy, in words; empty when it may run the job.

    Each reason names its requirement. Never raises: a capability of a wrong type satisfies nothing.
    `open_hardware`: the worker has not spoken yet, so hardware that is not told counts as enough.
    `unloaded`: why connectors of its services did not load, told in place of what it offers.
    `offers`: digest → what a service has, for those that the capabilities name.
    """
    asked = requirements
    reasons: list[str] = []
    if reason := _service_reason(asked.service, capabilities, unloaded):
        reasons.append(reason)
    if asked.hardware != _NO_HARDWARE:
        reasons += _hardware_reasons(asked.hardware, capabilities, open_ended=open_hardware)
    if asked.models and (reason := _model_reason(asked.models, asked.service, capabilities, offers)):
        reasons.append(reason)
    if asked.needs is not None and (lacks := lacking(asked.needs, asked.service, capabilities, offers)):
        reasons.append(f"{lacks.in_words} is needed, the worker does not have it")
    if reason := customer_reason(asked.customer, asked.isolation, capabilities):
        reasons.append(reason)
    if reason := workflow_reason(asked.workflow, capabilities):
        reasons.append(reason)
    for name, wanted in asked.positive.items():
        if name not in capabilities:
            reasons.append(f"{name}: {shown(wanted)} is needed, the worker does not have it")
        elif not holds(wanted, capabilities[name]):
            reasons.append(f"{name}: {shown(wanted)} is needed, the worker has {shown(capabilities[name])}")
    for name, unwanted in asked.negative.items():
        if name in capabilities and touches(unwanted, capabilities[name]):
            reasons.append(f"{name}: {shown(unwanted)} is ruled out, the worker has {shown(capabilities[name])}")
    return tuple(reasons)


def _as_set(value: object) -> object:
    """A wanted list asks the same in any order."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return value
    texts = {msgspec.json.encode(item, order="deterministic"): item for item in value}
    return [texts[text] for text in sorted(texts)]


def canonical(requirements: Requirements) -> bytes:
    """One text for requirements that ask the same, whatever the order of their keys and lists."""
    changes: dict[str, Any] = {}
    if len(requirements.models) > 1:
        changes["models"] = tuple(sorted(set(requirements.models)))
    if (needs := requirements.needs) is not None:
        changes["needs"] = both(needs, needs)
    if isinstance(model := requirements.hardware.gpu_model, tuple):
        models = tuple(sorted(set(model)))
        changes["hardware"] = msgspec.structs.replace(
            requirements.hardware, gpu_model=models[0] if len(models) == 1 else models
        )
    elif requirements.hardware is not _NO_HARDWARE and requirements.hardware == _NO_HARDWARE:
        changes["hardware"] = _NO_HARDWARE  # msgspec leaves out a default only when it is that very object
    for name, custom in (("positive", requirements.positive), ("negative", requirements.negative)):
        if any(isinstance(value, list | tuple) for value in custom.values()):
            changes[name] = {key: _as_set(value) for key, value in custom.items()}
    asked = msgspec.structs.replace(requirements, **changes) if changes else requirements
    return msgspec.json.encode(asked, order="deterministic")


def lane_of(requirements: Requirements) -> str:
    """The signature of the lane for these requirements: 16 hexadecimal digits."""
    return signature(canonical(requirements))


def signature(text: bytes) -> str:
    """The signature of the lane whose canonical requirements are `text`."""
    return hashlib.sha256(text).hexdigest()[:16]


# What a worker's answer depends on whatever a job asks.
ALWAYS_ASKED = frozenset({"services", "customers", "workflows"})


def asked_of(requirements: Requirements) -> frozenset[str]:
    """The names of the capabilities that decide whether a worker satisfies these requirements."""
    asked = ALWAYS_ASKED | requirements.positive.keys() | requirements.negative.keys()
    if requirements.models or requirements.needs is not None:
        asked |= {"models", SERVICE_OFFERS}
    if requirements.hardware != Hardware():
        asked |= {"hardware"}
    return asked
