"""`warmup` of a service: the workflow in a file beside emp.yaml, read and checked when emp.yaml is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from emp_orch.fleet.model.fleet import Service, ServiceName
from emp_orch.host import plainfile
from emp_orch.jobs.document.workflows import normalised
from emp_orch.manifest.text.problems import Path as Place
from emp_orch.manifest.text.problems import Report, quoted
from emp_orch.manifest.text.tree import Source

if TYPE_CHECKING:
    from emp_orch.manifest.build import Built

# It travels with every configuration of a machine.
MAX_BYTES = 256 * 1024
# The connectors that take a workflow.
_TAKES = "comfyui"
_MAX_TOLD = 5


def read(built: Built, document: dict[str, Any], source: Source, report: Report, *, folder: Path) -> Built:
    """`built` with the payloads of the warm-ups that services name; paths are relative to `folder`."""
    services = dict(built.fleet.services)
    raw = document.get("services")
    for name, entry in raw.items() if isinstance(raw, dict) else ():
        service = services.get(ServiceName(name))
        named = entry.get("warmup") if isinstance(entry, dict) else None
        if service is not None and isinstance(named, str) and named:
            payload = _Reading(source, report, ("services", name, "warmup")).payload(service, folder / named, named)
            services[service.name] = msgspec.structs.replace(service, warmup=payload)
    if services == built.fleet.services:
        return built
    return dataclasses.replace(built, fleet=msgspec.structs.replace(built.fleet, services=services))


class _Reading:
    def __init__(self, source: Source, report: Report, place: Place) -> None:
        self._source = source
        self._report = report
        self._place = place

    def _bad(self, message: str, hint: str = "") -> str:
        self._report.add(self._place, self._source.value_mark(self._place), message, hint)
        return ""

    def payload(self, service: Service, path: Path, named: str) -> str:
        """The payload as JSON; '' with a problem reported."""
        if service.connector != _TAKES:
            return self._bad(
                f"a warm-up is a workflow of ComfyUI, and {quoted(service.name)} does not have that connector",
                "connector: comfyui",
            )
        try:
            text = plainfile.read(path, limit=MAX_BYTES)
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else "it is no path"
            return self._bad(f"cannot read {quoted(named)}: {why}", "the path is relative to the folder of this file")
        if len(text) > MAX_BYTES:
            return self._bad(f"{quoted(named)} is larger than {MAX_BYTES // 1024} KiB", "a small workflow warms up too")
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            return self._bad(f"{quoted(named)} is not JSON: {e}", "in ComfyUI: Workflow, Export (API)")
        asked = normalised(value)
        if isinstance(asked, list):
            return self._bad(f"{quoted(named)}: {'; '.join(asked[:_MAX_TOLD])}")
        if asked.secrets:
            return self._bad(f"{quoted(named)} holds a key of ComfyUI's API", "a warm-up runs without keys")
        return msgspec.json.encode(asked.payload, order="sorted").decode()
