"""The parts of a checked document, defaults filled in → the values of the fleet."""

from __future__ import annotations

from typing import Any

from emp_orch.fleet.model.fleet import (
    BreakerSpec,
    BudgetSpec,
    ControlRuntime,
    ControlSpec,
    DockerHost,
    DockerTls,
    Endpoint,
    EnvValue,
    GpuKind,
    Gpus,
    Health,
    InputsSpec,
    Install,
    JobsSpec,
    Limits,
    Machine,
    Pool,
    PoolName,
    PoolScale,
    ReconcileSpec,
    RolloutSpec,
    SecretRef,
    TokenSpec,
    Volume,
)
from emp_orch.roles import Role
from emp_orch.units import seconds, size


def pool_of(name: str, d: dict[str, Any], template: Machine) -> Pool:
    least, _, most = str(d["size"]).partition("..")
    scale = d["scale"]
    return Pool(
        name=PoolName(name),
        provider=d["provider"],
        min_size=int(least),
        max_size=int(most or least),
        template=template,
        scale=PoolScale(
            jobs_per_gpu=float(scale["jobs_per_gpu"]),
            up_after_s=seconds(scale["up_after"]),
            down_after_s=seconds(scale["down_after"]),
        ),
        forget_after_s=seconds(d["forget_after"]),
        cost=float(d["cost"]),
        options=d["provider_options"],
        origin=template.origin,
    )


def endpoint_of(d: dict[str, Any]) -> Endpoint:
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


def jobs_of(d: dict[str, Any]) -> JobsSpec:
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


def reconcile_of(d: dict[str, Any]) -> ReconcileSpec:
    said = str(d["max_unavailable"])
    percent = int(said[:-1]) if said.endswith("%") else None
    return ReconcileSpec(
        interval_s=seconds(d["interval"]),
        stale_after_s=seconds(d["stale_after"]),
        stuck_after_s=seconds(d["stuck_after"]),
        max_unavailable=1 if percent is not None else int(said),
        max_unavailable_percent=percent,
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


def health_of(d: dict[str, Any] | None, raw: dict[str, Any] | None) -> Health | None:
    """`raw`: as it stands in the file. A default path is for who names no other check."""
    if d is None:
        return None
    named = raw is not None and any(key in raw for key in ("tcp", "command"))
    return Health(
        http="" if named and raw is not None and "http" not in raw else d["http"],
        tcp=str(d.get("tcp", "")),
        command=command_of(d.get("command")) or (),
        interval_s=seconds(d["interval"]),
        timeout_s=seconds(d["timeout"]),
        failures=int(d["failures"]),
        startup_s=seconds(d["startup"]),
    )


def install_of(d: dict[str, Any] | None) -> Install | None:
    return None if d is None else Install(command=command_of(d["command"]) or (), creates=d["creates"] or None)


def command_of(words: list[Any] | None) -> tuple[str, ...] | None:
    """interpolate.py has split a command that was one text."""
    return None if words is None else tuple(str(word) for word in words)


def env_of(d: dict[str, Any]) -> dict[str, EnvValue]:
    return {name: _secret(value) if isinstance(value, dict) else str(value) for name, value in d.items()}


def _secret(d: dict[str, str]) -> SecretRef:
    ((source, name),) = d.items()
    return SecretRef(source=source, name=name)


def control_of(d: dict[str, Any]) -> ControlSpec:
    return ControlSpec(runtime=ControlRuntime(d["runtime"]), image=d["image"] or None, redis_image=d["redis_image"])


def host_of(d: dict[str, Any]) -> DockerHost:
    tls = d["tls"]
    return DockerHost(docker=d["docker"], tls=None if tls is None else DockerTls(**tls))


def volume_of(text: str) -> Volume:
    source, target, *mode = text.split(":")
    return Volume(source=source, target=target, read_only=mode == ["ro"])


def limits_of(d: dict[str, Any]) -> Limits:
    return Limits(
        memory_bytes=None if d["memory"] is None else size(d["memory"]),
        shm_bytes=None if d["shm"] is None else size(d["shm"]),
        cpus=None if d["cpus"] is None else float(d["cpus"]),
        swap_bytes=None if d["swap"] is None else size(d["swap"]),
        pids=d["pids"],
    )


def gpus_of(d: str | dict[str, Any]) -> Gpus:
    if isinstance(d, str):
        return Gpus(kind=GpuKind(d), ids=())
    return Gpus(kind=GpuKind(d["kind"]), ids=tuple(str(i) for i in d["ids"]))


def with_sizes(value: Any) -> Any:
    """`value` with every size (`8GiB`) in bytes."""
    match value:
        case dict():
            return {k: with_sizes(v) for k, v in value.items()}
        case list():
            return [with_sizes(v) for v in value]
        case str():
            return value if (number := size(value)) is None else number
        case _:
            return value
