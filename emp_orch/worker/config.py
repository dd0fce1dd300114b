"""What one worker is told at its start."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct, structs

from emp_orch.errors import UsageError
from emp_orch.fleet.model import MachineId, WorkerId

_SPEC = re.compile(r"(?P<service>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<connector>[A-Za-z0-9._-]+)@(?P<url>.+)")


class ServiceBinding(Struct, frozen=True, kw_only=True):
    """A service, and which connector reaches it where. `options` are that connector's settings."""

    service: str
    connector: str
    url: str
    options: dict[str, Any] = {}


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """`capabilities` are the user's own, merged over what the worker knows of itself. `artifacts`: the store's URL."""

    machine_id: MachineId
    gpu: int
    services: tuple[ServiceBinding, ...]
    capabilities: dict[str, Any]
    drain_timeout_s: float
    job_timeout_s: float
    lease_s: float
    heartbeat_s: float
    probe_s: float
    artifacts: str

    @property
    def worker_id(self) -> WorkerId:
        return WorkerId(f"{self.machine_id}-worker-{self.gpu}")


def parse_binding(text: str) -> ServiceBinding:
    """`NAME=CONNECTOR@URL`. Raises UsageError."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--service {text!r} is not NAME=CONNECTOR@URL", hint="for example comfyui=comfyui@http://127.0.0.1:8188"
        )
    return ServiceBinding(service=match["service"], connector=match["connector"], url=match["url"])


def with_options(bindings: tuple[ServiceBinding, ...], texts: tuple[str, ...]) -> tuple[ServiceBinding, ...]:
    """`bindings` with the settings in `texts`, each `NAME=JSON`. Raises UsageError, which shows no setting's value."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in {b.service for b in bindings}:
            raise UsageError(f"--connector-options {name!r} names no --service", hint="write NAME=JSON")
        if name in options:
            raise UsageError(f"--connector-options names {name} twice")
        try:
            options[name] = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
            raise UsageError(f"--connector-options of {name} is not a JSON object: {e}") from e
    return tuple(structs.replace(b, options=options.get(b.service, {})) for b in bindings)


def check_machine_id(text: str) -> MachineId:
    """A worker belongs to a machine from its first byte. Raises UsageError."""
    if not text.strip() or text.strip().casefold() in ("unknown", "undefined", "null", "none"):
        raise UsageError(f"{text!r} is not a machine's id", hint="name the machine with --machine or MACHINE_ID")
    return MachineId(text.strip())
