"""What one worker is told at its start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from emp_orch.errors import UsageError
from emp_orch.fleet.desired.artifacts import THROUGH_API
from emp_orch.fleet.model.fleet import MachineId, WorkerId

MAX_DISCOVER_S = 10_000_000.0
_SPEC = re.compile(r"(?P<service>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<connector>[A-Za-z0-9._-]+)@(?P<url>.+)")


class UrlRules(Struct, frozen=True, kw_only=True):
    """`jobs.inputs` of emp.yaml, as far as it is about URLs. Without hosts, none is fetched."""

    hosts: tuple[str, ...] = ()
    max_bytes: int = 0


class ServiceBinding(Struct, frozen=True, kw_only=True):
    """A service, and which connector reaches it where. `options` are that connector's settings.

    `discover_s`: how often it is asked which models and node classes it has; 0: never. `warmup`: the payload that is
    run after each of its starts, before it is given jobs.
    """

    service: str
    connector: str
    url: str
    options: dict[str, Any] = {}
    discover_s: float = 0.0
    warmup: dict[str, Any] | None = None


class WorkerConfig(Struct, frozen=True, kw_only=True):
    """`capabilities` are the user's own, merged over what the worker knows of itself. `artifacts`: the store's URL, or
    THROUGH_API.
    `url_inputs`: which URLs of inputs it fetches.
    `affinity`: whether it says which models it ran last, so that it gets jobs for them first. `replicas` of Redis are
    waited for at the end of a run.
    """

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
    affinity: bool = True
    url_inputs: UrlRules = UrlRules()
    replicas: int = 0

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


def _named(texts: tuple[str, ...], flag: str, form: str, bindings: tuple[ServiceBinding, ...]) -> dict[str, str]:
    """`NAME=VALUE` texts by the service that they name. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in {b.service for b in bindings}:
            raise UsageError(f"{flag} {name!r} names no --service", hint=f"write {form}")
        if name in found:
            raise UsageError(f"{flag} names {name} twice")
        found[name] = value
    return found


def with_discovery(bindings: tuple[ServiceBinding, ...], texts: tuple[str, ...]) -> tuple[ServiceBinding, ...]:
    """`bindings` with how often each is asked what it has, by `NAME=SECONDS`. Raises UsageError."""
    given = _named(texts, "--discover", "NAME=SECONDS", bindings)
    try:
        seconds = {name: float(value) for name, value in given.items()}
    except ValueError as e:
        raise UsageError(f"--discover: {e}", hint="write NAME=SECONDS") from e
    if any(not 0 <= s < MAX_DISCOVER_S for s in seconds.values()):
        raise UsageError("--discover: expected seconds, 0 or more", hint="0 is never")
    return tuple(structs.replace(b, discover_s=seconds.get(b.service, 0.0)) for b in bindings)


def with_warmups(bindings: tuple[ServiceBinding, ...], texts: tuple[str, ...]) -> tuple[ServiceBinding, ...]:
    """`bindings` with the payloads in the files that `NAME=FILE` name. Raises UsageError."""
    payloads: dict[str, dict[str, Any]] = {}
    for name, path in _named(texts, "--warmup", "NAME=FILE", bindings).items():
        try:
            payloads[name] = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
        except OSError as e:
            raise UsageError(f"--warmup of {name}: cannot read {path}: {e.strerror}") from e
        except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
            raise UsageError(f"--warmup of {name}: {path} is not a JSON object: {e}") from e
    return tuple(structs.replace(b, warmup=payloads.get(b.service)) for b in bindings)


def store_url(given: str, environ: Mapping[str, str], access: Path | None) -> str:
    """Where outputs go. A machine that somebody started by hand, and that knows no API, goes by its environment."""
    if given == THROUGH_API and (access is None or not access.exists()):
        return environ.get("EMP_ARTIFACTS_URL") or given
    return given


def check_machine_id(text: str) -> MachineId:
    """A worker belongs to a machine from its first byte. Raises UsageError."""
    if not text.strip() or text.strip().casefold() in ("unknown", "undefined", "null", "none"):
        raise UsageError(f"{text!r} is not a machine's id", hint="name the machine with --machine or MACHINE_ID")
    return MachineId(text.strip())


def machine_folder() -> Path | None:
    """The folder of the machine that this worker belongs to; None for one that belongs to none here."""
    named = os.environ.get("EMP_MACHINE_DIR")
    return Path(named) if named else None
