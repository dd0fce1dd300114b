"""A checked document → the Fleet. What is broken is left out, so that the rest can still be checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from emp_orch.fleet.model.fleet import (
    BreakerSpec,
    BudgetSpec,
    ControlRuntime,
    ControlSpec,
    DockerHost,
    DockerTls,
    Endpoint,
    EnvValue,
    Fleet,
    GpuKind,
    Gpus,
    Health,
    InputsSpec,
    Install,
    JobsSpec,
    Limits,
    Machine,
    MachineId,
    ReconcileSpec,
    RedisSpec,
    RolloutSpec,
    Scale,
    SecretRef,
    Service,
    ServiceName,
    Stop,
    TokenSpec,
    Volume,
    WorkerSpec,
)
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.manifest import comfyui, schema_reader
from emp_orch.manifest.text.problems import Path, Report
from emp_orch.manifest.text.tree import Source
from emp_orch.roles import Role
from emp_orch.units import seconds, size

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
            api=_endpoint(self._part("api")),
            monitor=_endpoint(self._part("monitor")),
            services=services,
            machines=tuple(machines),
            jobs=_jobs(self._part("jobs")),
            reconcile=_reconcile(self._part("reconcile")),
            control=_control(self._part("control")),
            hosts={
                name: _host(schema_reader.fill(schema_reader.sub("hosts", "*"), d)) for name, d in self._sound("hosts")
            },
            worker_package=self._worker_package(),
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
            command=_command(d.get("command")),
            builtin=d["builtin"],
            connector=None if connector == "none" else connector,
            connector_options=d["connector_options"],
            discover_s=seconds(d["discover"]),
            port=None if d["port"] is None else int(d["port"]),
            health=_health(
                comfyui.patient(raw) if connector == comfyui.COMFYUI and "command" in raw else d["health"],
                raw.get("health"),
            ),
            install=_install(d["install"]),
            env=_env(d["env"]),
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
            if "services" not in d:
                path = ("machines", name, "services")
                mark = self._source.key_mark(path[:2])
                wanted = "missing; expected a list of service names, here or in defaults"
                self._report.add(path, mark, wanted, "[] is a machine with only workers")
                continue
            yield name, None if d["replicas"] is None else int(d["replicas"]), self._machine(name, d)

    def _machine(self, name: str, d: dict[str, Any]) -> Machine:
        return Machine(
            id=MachineId(name),
            runtime=RuntimeKind(d["runtime"]),
            num_gpus=int(d["num_gpus"]),
            services=tuple(ServiceName(n) for n in d["services"]),
            env=_env(d["env"]),
            gpus=_gpus(d["gpus"]),
            host=d["host"] or None,
            image=d["image"] or None,
            ports={ServiceName(n): int(p) for n, p in d["ports"].items()},
            port_offset=0,
            health_port=int(d["health_port"]),
            labels={k: str(v) for k, v in d["labels"].items()},
            worker=WorkerSpec(
                capabilities=_with_sizes(d["worker"]["capabilities"]),
                drain_timeout_s=seconds(d["worker"]["drain_timeout"]),
                job_timeout_s=seconds(d["worker"]["job_timeout"]),
            ),
            origin=self._origin(("machines", name)),
            publish=tuple(ServiceName(n) for n in d["publish"]),
            volumes=tuple(_volume(v) for v in d["volumes"]),
            limits=_limits(d["limits"]),
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


def _endpoint(d: dict[str, Any]) -> Endpoint:
    token = None if d["token"] is None else _secret(d["token"])
    return Endpoint(
        host=d["host"],
        port=int(d["port"]),
        token=token,
        machine_url=d.get("machine_url") or "",
        tokens=tuple(_token(name, each) for name, each in d.get("tokens", {}).items()),
        role=Role(d.get("role", Role.OPERATE)),
    )


def _token(name: str, d: dict[str, Any]) -> TokenSpec:
    count, _, unit = (d["rate"] or "0/s").partition("/")
    return TokenSpec(
        name=name,
        role=Role(d["role"]),
        token=_secret(d["token"]),
        previous=None if d["previous"] is None else _secret(d["previous"]),
        rate_count=int(count),
        rate_s=seconds(f"1{unit}"),
    )


def _jobs(d: dict[str, Any]) -> JobsSpec:
    return JobsSpec(
        artifacts=d["artifacts"] or "",
        keep_count=int(d["keep"]["count"]),
        keep_age_s=seconds(d["keep"]["age"]),
        lease_s=seconds(d["lease"]),
        inputs=_inputs(d["inputs"]),
        affinity=d["affinity"],
    )


def _inputs(d: dict[str, Any]) -> InputsSpec:
    return InputsSpec(hosts=tuple(d["hosts"]), keep_s=seconds(d["keep"]), max_bytes=size(d["max_size"]) or 0)


def _reconcile(d: dict[str, Any]) -> ReconcileSpec:
    return ReconcileSpec(
        interval_s=seconds(d["interval"]),
        stale_after_s=seconds(d["stale_after"]),
        stuck_after_s=seconds(d["stuck_after"]),
        max_unavailable=int(d["max_unavailable"]),
        prune=d["prune"],
        budget=_budget(d["budget"]),
        breaker=_breaker(d["breaker"]),
        rollout=_rollout(d["rollout"]),
    )


def _budget(d: dict[str, Any]) -> BudgetSpec:
    return BudgetSpec(program=int(d["program"]), machine=int(d["machine"]), window_s=seconds(d["window"]))


def _breaker(d: dict[str, Any]) -> BreakerSpec:
    return BreakerSpec(share=float(d["share"]), window_s=seconds(d["window"]), probe_s=seconds(d["probe"]))


def _rollout(d: dict[str, Any]) -> RolloutSpec:
    return RolloutSpec(
        min_healthy_s=seconds(d["min_healthy"]),
        progress_deadline_s=seconds(d["progress_deadline"]),
        rollback=d["rollback"],
    )


def _health(d: dict[str, Any] | None, raw: dict[str, Any] | None) -> Health | None:
    """`raw`: as it stands in the file. A default path is for who names no other check."""
    if d is None:
        return None
    named = raw is not None and any(key in raw for key in ("tcp", "command"))
    return Health(
        http="" if named and raw is not None and "http" not in raw else d["http"],
        tcp=str(d.get("tcp", "")),
        command=_command(d.get("command")) or (),
        interval_s=seconds(d["interval"]),
        timeout_s=seconds(d["timeout"]),
        failures=int(d["failures"]),
        startup_s=seconds(d["startup"]),
    )


def _install(d: dict[str, Any] | None) -> Install | None:
    return None if d is None else Install(command=_command(d["command"]) or (), creates=d["creates"] or None)


def _command(words: list[Any] | None) -> tuple[str, ...] | None:
    """interpolate.py has split a command that was one text."""
    return None if words is None else tuple(str(word) for word in words)


def _env(d: dict[str, Any]) -> dict[str, EnvValue]:
    return {name: _secret(value) if isinstance(value, dict) else str(value) for name, value in d.items()}


def _secret(d: dict[str, str]) -> SecretRef:
    ((source, name),) = d.items()
    return SecretRef(source=source, name=name)


def _control(d: dict[str, Any]) -> ControlSpec:
    return ControlSpec(runtime=ControlRuntime(d["runtime"]), image=d["image"] or None, redis_image=d["redis_image"])


def _host(d: dict[str, Any]) -> DockerHost:
    tls = d["tls"]
    return DockerHost(docker=d["docker"], tls=None if tls is None else DockerTls(**tls))


def _volume(text: str) -> Volume:
    source, target, *mode = text.split(":")
    return Volume(source=source, target=target, read_only=mode == ["ro"])


def _limits(d: dict[str, Any]) -> Limits:
    return Limits(
        memory_bytes=None if d["memory"] is None else size(d["memory"]),
        shm_bytes=None if d["shm"] is None else size(d["shm"]),
        cpus=None if d["cpus"] is None else float(d["cpus"]),
        swap_bytes=None if d["swap"] is None else size(d["swap"]),
        pids=d["pids"],
    )


def _gpus(d: str | dict[str, Any]) -> Gpus:
    if isinstance(d, str):
        return Gpus(kind=GpuKind(d), ids=())
    return Gpus(kind=GpuKind(d["kind"]), ids=tuple(str(i) for i in d["ids"]))


def _with_sizes(value: Any) -> Any:
    """`value` with every size (`8GiB`) in bytes."""
    match value:
        case dict():
            return {k: _with_sizes(v) for k, v in value.items()}
        case list():
            return [_with_sizes(v) for v in value]
        case str():
            return value if (number := size(value)) is None else number
        case _:
            return value
