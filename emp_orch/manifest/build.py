"""A checked document → the Fleet. What is broken is left out, so that the rest can still be checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from emp_orch.fleet.model.fleet import (
    Fleet,
    Machine,
    MachineId,
    Pool,
    RedisSpec,
    Scale,
    Service,
    ServiceName,
    Stop,
    WorkerSpec,
)
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.manifest import comfyui, schema_reader
from emp_orch.manifest.parts import (
    command_of,
    control_of,
    endpoint_of,
    env_of,
    gpus_of,
    health_of,
    host_of,
    install_of,
    jobs_of,
    limits_of,
    pool_of,
    reconcile_of,
    volume_of,
    with_sizes,
)
from emp_orch.manifest.text.problems import Path, Report
from emp_orch.manifest.text.tree import Source
from emp_orch.units import seconds

MAX_MACHINES = 10_000
PORT_STEP = 100  # between replicas that share a host; the schema says so under `replicas`
# Services of these names need not name their connector; the schema says so.
_NAMED_LIKE_CONNECTOR = frozenset({"simulation", "comfyui"})
# Settings of a machine that are merged with those in `defaults` key by key, and how many levels deep.
_MERGED = {"env": 1, "labels": 1, "ports": 1, "gpus": 1, "limits": 1, "worker": 2}


@dataclass(frozen=True, slots=True)
class Built:
    """`entries` are the machines by their key in the file, before replicas; `owner` says which key a machine is of."""

    fleet: Fleet
    entries: dict[str, Machine]
    owner: dict[MachineId, str]


def _filled(section: str, raw: dict[str, Any]) -> dict[str, Any]:
    """One entry of a section of named entries, with the schema's defaults."""
    filled: dict[str, Any] = schema_reader.fill(schema_reader.sub(section, "*"), raw)
    return filled


def build(document: dict[str, Any], source: Source, report: Report, *, file: str) -> Built:
    """The fleet, from all parts of `document` that `report` has nothing on. `file` goes into every origin."""
    return _Build(document, source, report, file).built()


class _Build:
    def __init__(self, document: dict[str, Any], source: Source, report: Report, file: str) -> None:
        self._document = document
        self._source = source
        self._report = report
        self._file = file

    def built(self) -> Built:
        services = {ServiceName(n): self._service(n, d) for n, d in self._sound("services")}
        entries: dict[str, Machine] = {}
        machines: list[Machine] = []
        owner: dict[MachineId, str] = {}
        for name, replicas, machine in self._machines():
            entries[name] = machine
            for one in _replicas(machine, replicas) if self._fits(name, len(machines) + (replicas or 1)) else ():
                if one.id in owner:
                    hint = "rename one: replicas of NAME are called NAME-1, NAME-2, …"
                    mark = self._source.key_mark(("machines", name))
                    self._report.add(
                        ("machines", name), mark, f"machine {one.id} is also described by {owner[one.id]}", hint
                    )
                else:
                    owner[one.id] = name
                    machines.append(one)
        redis = self._part("redis")
        fleet = Fleet(
            name=self._document["name"] if self._report.sound(("name",)) else "",
            redis=RedisSpec(
                url=redis["url"],
                port=int(redis["port"]),
                machine_url=redis["machine_url"] or "",
                prefix=redis["prefix"],
                replicas=int(redis["replicas"]),
            ),
            api=endpoint_of(self._part("api")),
            monitor=endpoint_of(self._part("monitor")),
            services=services,
            machines=tuple(machines),
            jobs=jobs_of(self._part("jobs")),
            reconcile=reconcile_of(self._part("reconcile")),
            control=control_of(self._part("control")),
            hosts={
                name: host_of(schema_reader.fill(schema_reader.sub("hosts", "*"), d))
                for name, d in self._sound("hosts")
            },
            worker_package=self._worker_package(),
            pools={pool.name: pool for pool in self._pools()},
        )
        return Built(fleet, entries, owner)

    def _part(self, name: str) -> dict[str, Any]:
        """A top-level mapping with its defaults; only the defaults when it is broken."""
        value = self._document.get(name, {}) if self._report.sound((name,)) else {}
        filled: dict[str, Any] = schema_reader.fill(schema_reader.sub(name), value)
        return filled

    def _worker_package(self) -> WorkerPackage | None:
        raw = self._document.get("worker_package") if self._report.sound(("worker_package",)) else None
        return None if raw is None else WorkerPackage(digest=raw["sha256"], url=raw["url"])

    def _sound(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The entries of a top-level mapping that nothing is wrong with, not yet filled."""
        entries = self._document.get(name, {})
        if isinstance(entries, dict):
            for key, value in entries.items():
                if self._report.sound((name, key)):
                    yield key, value

    def _origin(self, path: Path) -> str:
        mark = self._source.key_mark(path)
        return f"{self._file}:{mark.line}:{mark.column}"

    def _service(self, name: str, raw: dict[str, Any]) -> Service:
        d = _filled("services", raw)
        connector = d["connector"] or (name if name in _NAMED_LIKE_CONNECTOR else None)
        return Service(
            name=ServiceName(name),
            scale=Scale(d["scale"]),
            command=command_of(d.get("command")),
            builtin=d["builtin"],
            connector=None if connector == "none" else connector,
            connector_options=d["connector_options"],
            discover_s=seconds(d["discover"]),
            port=None if d["port"] is None else int(d["port"]),
            health=health_of(
                comfyui.patient(raw) if connector == comfyui.COMFYUI and "command" in raw else d["health"],
                raw.get("health"),
            ),
            install=install_of(d["install"]),
            env=env_of(d["env"]),
            cwd=d["cwd"] or None,
            stop=Stop(signal=d["stop"]["signal"], timeout_s=seconds(d["stop"]["timeout"])),
            start_s=seconds(d["start"]),
            depends_on=tuple(ServiceName(n) for n in d["depends_on"]),
            origin=self._origin(("services", name)),
            checkout=comfyui.read(d),
            inherit=tuple(d["inherit"]),
        )

    def _machines(self) -> Iterator[tuple[str, int | None, Machine]]:
        """Each entry under `machines` with its replicas, as one machine named like the entry."""
        if not self._report.sound(("defaults",)):
            return
        defaults = self._document.get("defaults", {})
        for name, raw in self._sound("machines"):
            d = _filled("machines", merge(defaults, raw))
            if self._has_services(("machines", name), d):
                machine = self._machine(("machines", name), d)
                yield name, None if d["replicas"] is None else int(d["replicas"]), machine

    def _has_services(self, path: Path, d: dict[str, Any]) -> bool:
        if "services" in d:
            return True
        wanted = "missing; expected a list of service names, here or in defaults"
        self._report.add((*path, "services"), self._source.key_mark(path), wanted, "[] is a machine with only workers")
        return False

    def _pools(self) -> Iterator[Pool]:
        if not self._report.sound(("defaults",)):
            return
        known = schema_reader.sub("pools", "*")["properties"]
        defaults = {k: v for k, v in self._document.get("defaults", {}).items() if k in known}
        for name, raw in self._sound("pools"):
            path = ("pools", name)
            d = _filled("pools", merge(defaults, raw))
            if not self._has_services(path, d):
                continue
            machine = _filled(
                "machines", {k: v for k, v in d.items() if k in schema_reader.sub("machines", "*")["properties"]}
            )
            template = self._machine(path, {**machine, "runtime": RuntimeKind.EXTERNAL})
            yield pool_of(name, d, msgspec.structs.replace(template, id=MachineId("")))

    def _machine(self, path: Path, d: dict[str, Any]) -> Machine:
        return Machine(
            id=MachineId(str(path[-1])),
            runtime=RuntimeKind(d["runtime"]),
            num_gpus=int(d["num_gpus"]),
            services=tuple(ServiceName(n) for n in d["services"]),
            env=env_of(d["env"]),
            gpus=gpus_of(d["gpus"]),
            host=d["host"] or None,
            image=d["image"] or None,
            ports={ServiceName(n): int(p) for n, p in d["ports"].items()},
            port_offset=0,
            health_port=int(d["health_port"]),
            labels={k: str(v) for k, v in d["labels"].items()},
            worker=WorkerSpec(
                capabilities=with_sizes(d["worker"]["capabilities"]),
                drain_timeout_s=seconds(d["worker"]["drain_timeout"]),
                job_timeout_s=seconds(d["worker"]["job_timeout"]),
            ),
            origin=self._origin(path),
            publish=tuple(ServiceName(n) for n in d["publish"]),
            volumes=tuple(volume_of(v) for v in d["volumes"]),
            limits=limits_of(d["limits"]),
            inherit=tuple(d["inherit"]),
        )

    def _fits(self, name: str, count: int) -> bool:
        if count <= MAX_MACHINES:
            return True
        path = ("machines", name)
        mark = self._source.key_mark(path)
        self._report.add(path, mark, f"with this the fleet has {count} machines; emp takes {MAX_MACHINES}")
        return False


def merge(defaults: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """A machine's settings over the defaults, as the schema says under `defaults`."""
    return _merge(defaults, machine, _MERGED)


def _merge(under: dict[str, Any], over: dict[str, Any], levels: dict[str, int]) -> dict[str, Any]:
    merged = {**under, **over}
    for key, depth in levels.items():
        low, high = under.get(key), over.get(key)
        if isinstance(low, dict) and isinstance(high, dict):
            merged[key] = _merge(low, high, dict.fromkeys(low, depth - 1) if depth > 1 else {})
    return merged


def _replicas(machine: Machine, replicas: int | None) -> Iterator[Machine]:
    if replicas is None:
        yield machine
        return
    step = 0 if machine.traits.joins else PORT_STEP
    for k in range(1, replicas + 1):
        offset = step * (k - 1)
        yield msgspec.structs.replace(
            machine,
            id=MachineId(f"{machine.id}-{k}"),
            port_offset=offset,
            health_port=machine.health_port + offset if machine.health_port else 0,
        )
