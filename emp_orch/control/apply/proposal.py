"""What an emp.yaml asks for, resolved: the fleet, how its daemons reach each other, the values of its secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import structs

from emp_orch import manifest
from emp_orch import settings as settings_files
from emp_orch.control.checks.addresses import api_addresses, redis_addresses
from emp_orch.control.checks.host_gpus import allotted_here
from emp_orch.control.checks.proposed import Proposal
from emp_orch.control.plane.embedded_login import kept_password
from emp_orch.control.plane.packing import own_package
from emp_orch.environments import of_store
from emp_orch.errors import EmpError, UsageError
from emp_orch.fleet.desired.inherits import runs_processes
from emp_orch.fleet.desired.machines import inherited
from emp_orch.fleet.model.fleet import EMBEDDED, ControlRuntime, Endpoint, EnvValue, Fleet, SecretRef
from emp_orch.fleet.model.hosts import LOCAL, host_of, is_here
from emp_orch.host import ownership, plainfile
from emp_orch.images import CONTROL_IMAGE
from emp_orch.layout import Layout
from emp_orch.options import providers
from emp_orch.runtimes.compose.connection import local_host
from emp_orch.settings import ControlContainers, EngineAddress, InputLimits, Listen, Settings, Token
from emp_orch.store.artifacts.store import Artifacts

# A value travels in an environment, where one variable may have 128 KiB.
MAX_SECRET = 128 * 1024


def read_proposal(path: Path, environ: Mapping[str, str], *, here: bool = False) -> tuple[Layout, Proposal]:
    """Load and resolve the emp.yaml at `path`; its folder is the fleet's folder. `here`: as manifest.load has it.

    Raises ConfigError, or UsageError for a secret without value, and a runtime or store that this emp lacks.
    """
    fleet = manifest.load(path, environ, here=here)
    layout = Layout(path.absolute().parent)
    known = manifest.environment(path, environ)
    proposal = propose(fleet, layout, known, source="emp.yaml", why=f"apply {path.name}")
    return layout, structs.replace(proposal, looks_up=True)


def propose(
    fleet: Fleet,
    layout: Layout,
    environ: Mapping[str, str],
    *,
    source: str,
    why: str,
    base: int | None = None,
    held: Mapping[str, str] | None = None,
) -> Proposal:
    """`fleet` with the values of its secrets, from `environ` and files in its folder, or else those in `held`.

    Raises UsageError for a secret without value, a runtime or store that this emp lacks, and in a copy of a folder.
    """
    secrets = _resolve(fleet, layout.root, environ, held or {})
    settings = _settings(fleet, layout, secrets)
    fleet = structs.replace(fleet, allotment=allotted_here(layout, environ, settings.hosts))
    Artifacts(settings.artifacts)  # raises here, not in the daemons, for a store that this emp has no package for
    return Proposal(
        fleet=fleet,
        settings=settings,
        secrets=secrets,
        source=source,
        why=why,
        base=base,
        package=fleet.worker_package or own_package(),
    )


def secret_files(fleet: Fleet, root: Path) -> frozenset[Path]:
    """The files whose content `fleet` takes as secrets."""
    return frozenset(root / ref.name for ref, _ in _references(fleet) if ref.source == "file")


def _settings(fleet: Fleet, layout: Layout, secrets: Mapping[str, str]) -> Settings:
    ownership.refuse_copies(layout.root)
    known = settings_files.known(layout)
    hosts = _hosts(fleet, layout, known)
    engines = _with_managers(hosts, fleet, layout)
    redis = redis_addresses(fleet, hosts, known, kept_password(layout))
    return Settings(
        fleet=fleet.name,
        redis_url=redis.control,
        machine_redis_url=redis.machine,
        container_redis_url=redis.container,
        redis_listen=redis.listen,
        door=api_addresses(fleet, hosts, known, redis.listen),
        api_machine_url=fleet.api.machine_url.rstrip("/"),
        hosts=engines,
        embedded=fleet.redis.url == EMBEDDED,
        redis_port=fleet.redis.port,
        prefix=fleet.redis.prefix,
        artifacts=fleet.jobs.artifacts or layout.artifacts_url,
        api=_listen(fleet.api, secrets),
        monitor=_listen(fleet.monitor, secrets),
        containers=_containers(fleet),
        inputs=_inputs(fleet),
        replicas=fleet.redis.replicas,
        uid=os.geteuid() if fleet.control.runtime is ControlRuntime.PROCESS else None,
    )


def _inputs(fleet: Fleet) -> InputLimits | None:
    inputs = fleet.jobs.inputs
    return None if inputs is None else InputLimits(hosts=inputs.hosts, max_bytes=inputs.max_bytes)


def _containers(fleet: Fleet) -> ControlContainers | None:
    """Where the control plane's containers run; None when it is processes. Raises UsageError without a local engine."""
    control = fleet.control
    if control.runtime is ControlRuntime.PROCESS:
        return None
    named = fleet.hosts.get(LOCAL)
    url = named.docker if named else local_host().url
    if not url.startswith("unix://"):
        raise UsageError(
            "control.runtime compose needs the engine of this host, by its socket",
            hint="hosts: {local: {docker: unix:///var/run/docker.sock}}, or another DOCKER_HOST",
        )
    return ControlContainers(
        socket=url.removeprefix("unix://"), image=control.image or CONTROL_IMAGE, redis_image=control.redis_image
    )


def _hosts(fleet: Fleet, layout: Layout, known: Settings | None) -> tuple[EngineAddress, ...]:
    """The Docker hosts that machines of this fleet run on, or ran on and were not removed from yet.

    Files of TLS are relative to the fleet's folder.
    """
    before = {h.name: h for h in known.hosts} if known else {}
    left = {path.parents[1].name for path in layout.hosts.glob("*/machines/*.json")}
    named = {host_of(m) for m in fleet.machines if m.traits.in_container}
    found = []
    for name in sorted(named | (left & before.keys())):
        if name not in fleet.hosts and name in before and name not in named:
            found.append(before[name])
        else:
            found.append(_address(name, fleet, layout))
    return tuple(found)


def _with_managers(hosts: tuple[EngineAddress, ...], fleet: Fleet, layout: Layout) -> tuple[EngineAddress, ...]:
    """`hosts`, and those by which the providers of pools reach their engines."""
    known = {host.name for host in hosts}
    asked = {providers.host_of(pool.provider, pool.options) for pool in fleet.pools.values()}
    return (*hosts, *(_address(name, fleet, layout) for name in sorted(asked - known - {""})))


def _address(name: str, fleet: Fleet, layout: Layout) -> EngineAddress:
    spec = fleet.hosts.get(name)
    if spec is None:
        return local_host()
    tls = {} if spec.tls is None else {"ca": spec.tls.ca, "cert": spec.tls.cert, "key": spec.tls.key}
    files = {k: str(layout.root / path) for k, path in tls.items() if path}
    return EngineAddress(name=name, url=spec.docker, here=is_here(spec), **files)


def _listen(endpoint: Endpoint, secrets: Mapping[str, str]) -> Listen:
    token = None if endpoint.token is None else secrets[endpoint.token.key]
    return Listen(
        host=endpoint.host,
        port=endpoint.port,
        token=token,
        tokens=tuple(
            Token(
                name=t.name,
                role=t.role,
                values=tuple(secrets[ref.key] for _, ref in t.refs),
                rate_count=t.rate_count,
                rate_s=t.rate_s,
            )
            for t in endpoint.tokens
        ),
        role=endpoint.role,
    )


def _references(fleet: Fleet) -> Iterator[tuple[SecretRef, str]]:
    """Every secret reference, with where it stands."""
    yield from _tokens(fleet)
    yield from _of_programs(fleet)


def program_secrets(fleet: Fleet) -> frozenset[str]:
    """The keys of the references that programs name, those of the providers of pools too."""
    return frozenset(ref.key for ref, _ in _of_programs(fleet))


def _of_programs(fleet: Fleet) -> Iterator[tuple[SecretRef, str]]:
    for service in fleet.services.values():
        yield from _in_env(service.env, f"services.{service.name}.env")
        yield from _in_env(inherited(service.inherit), f"services.{service.name}.inherit")
    for machine in fleet.machines:
        yield from _in_env(machine.env, f"machines.{machine.id}.env")
        yield from _in_env(inherited(machine.inherit), f"machines.{machine.id}.inherit")
    for pool in fleet.pools.values():
        yield from _in_env(pool.template.env, f"pools.{pool.name}.env")
        for where, ref in providers.references(pool.provider, pool.options):
            yield ref, f"pools.{pool.name}.provider_options.{where}"
    if fleet.control.runtime is ControlRuntime.PROCESS or runs_processes(fleet):
        yield from _in_env(inherited(of_store(fleet.jobs.artifacts)), "jobs.artifacts")


def _tokens(fleet: Fleet) -> Iterator[tuple[SecretRef, str]]:
    """The references of all tokens by which somebody is let in, with where they stand."""
    for name, endpoint in (("api", fleet.api), ("monitor", fleet.monitor)):
        if endpoint.token is not None:
            yield endpoint.token, f"{name}.token"
        for token in endpoint.tokens:
            yield from ((ref, f"{name}.tokens.{token.name}.{key}") for key, ref in token.refs)


def _in_env(env: Mapping[str, EnvValue], where: str) -> Iterator[tuple[SecretRef, str]]:
    for name, value in env.items():
        if isinstance(value, SecretRef):
            yield value, f"{where}.{name}"


def _resolve(fleet: Fleet, root: Path, environ: Mapping[str, str], held: Mapping[str, str]) -> dict[str, str]:
    """The value of every reference. Raises UsageError naming all that need one and have none."""
    values: dict[str, str] = {}
    missing: list[str] = []
    for ref, where in _references(fleet):
        if ref.optional:
            value = environ.get(ref.name, held.get(ref.key))
            values |= {} if value is None else {ref.key: value}
            continue
        try:
            values[ref.key] = _value(ref, root, environ)
        except EmpError as e:
            if ref.key in held:
                values[ref.key] = held[ref.key]
                continue
            missing.append(f"{where}: {e.message}")
    missing += [f"{where}: {why}" for where, why in _no_tokens(fleet, values)]
    if missing:
        raise UsageError(
            "secrets without a value:\n  " + "\n  ".join(missing),
            hint="set them in the environment or in .env beside emp.yaml, or make the file",
        )
    _refuse_twins(fleet, values)
    return values


def _no_tokens(fleet: Fleet, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Tokens that would let everybody in, or nobody, with the reason."""
    for ref, where in _tokens(fleet):
        value = values.get(ref.key)
        if value is None:
            continue
        if not value.strip():
            yield where, f"{ref.name} is empty: everybody would be let in"
        elif not (value.isascii() and value.isprintable()) or " " in value:
            yield where, f"{ref.name} holds a blank or a character that no HTTP header carries"


def _refuse_twins(fleet: Fleet, values: Mapping[str, str]) -> None:
    """Raises UsageError when one value would be two callers: which of them calls, nobody could tell.

    API and page may share one, and a token may still have the value that it had before.
    """
    first: dict[str, str] = {}
    for ref, where in _tokens(fleet):
        before = first.setdefault(values[ref.key], where)
        one, other = (place.rpartition(".")[0] for place in (before, where))
        if one != other and (one, other) != ("api", "monitor"):
            raise UsageError(
                f"{before} and {where} have the same value", hint=f"give {where} ({ref.key}) a value of its own"
            )


def _value(ref: SecretRef, root: Path, environ: Mapping[str, str]) -> str:
    if ref.source == "env":
        value = environ.get(ref.name)
        if not value:
            raise EmpError(f"the environment has no {ref.name}")
        return value
    try:
        content = plainfile.read(root / ref.name, limit=MAX_SECRET)
        if len(content) > MAX_SECRET:
            raise EmpError(f"{ref.name}: larger than {MAX_SECRET // 1024} KiB")
        return content.decode().rstrip("\r\n")
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise EmpError(f"{ref.name}: {reason}") from e
