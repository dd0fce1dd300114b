"""What no schema can say: names that must exist, settings that need each other, cycles."""

from __future__ import annotations

import re
from typing import Any

from emp_orch.fleet.desired.machines import SHARED_SETUP
from emp_orch.fleet.model.fleet import EMBEDDED, ControlRuntime, GpuKind, Health, Machine, Scale, Service, ServiceName
from emp_orch.fleet.model.hosts import is_loopback
from emp_orch.jobs.document.outputs import url_holds_login
from emp_orch.manifest.build import Built
from emp_orch.manifest.checks import comfyui, containers, inherits, pools, ports
from emp_orch.manifest.checks.addresses import redis_problem
from emp_orch.manifest.show import found
from emp_orch.manifest.text.problems import Path, Report, did_you_mean, quoted
from emp_orch.manifest.text.tree import Mapping, Source
from emp_orch.options.base import WrongOption
from emp_orch.options.registry import check as check_options

RESERVED_SERVICES = frozenset({"agent", "redis-worker", SHARED_SETUP, "supervisord"})
RESERVED_MACHINES = frozenset({"all", "control", "forget", "join", "revoke", "run", "unknown"})
_PROGRAM_SUFFIX = re.compile(r".*-(?:gpu[0-9]+|installer)\Z")
_MAX_NAME = 63
_MIN_KEEP_S = 60.0
MAX_PORT = 65_535
_MIN_LEASE_S = 1.0
_REDIS_FORMS = "redis://[user:password@]host[:port][/database], rediss://…, unix:///socket[?db=database], or redis+sentinel://host:port,host:port/name[/database]"


def check(built: Built, document: dict[str, Any], source: Source, report: Report) -> None:
    """Report all that does not hold together: names in the whole `document`, the rest in its sound parts."""
    checks = _Checks(built, source, report)
    checks.names()
    checks.references(document)
    checks.redis()
    checks.jobs()
    checks.endpoints()
    for service in built.fleet.services.values():
        checks.service(service)
    checks.cycles()
    for name, machine in built.entries.items():
        checks.machine(("machines", name), machine)
    for pool in built.fleet.pools.values():
        checks.machine(("pools", pool.name), pool.template)
    pools.check(built, source, report)
    comfyui.check(built, source, report)
    containers.check(built, source, report)
    ports.check(built, source, report)
    inherits.check(built, source, report)


class _Checks:
    def __init__(self, built: Built, source: Source, report: Report) -> None:
        self._built = built
        self._fleet = built.fleet
        self._source = source
        self._report = report
        # Broken services are no longer in the fleet, but a machine that names one is right.
        self._services = dict.fromkeys(self._keys("services"))

    def _keys(self, name: str) -> list[str]:
        node = self._source.node((name,))
        return list(node.values) if isinstance(node, Mapping) else []

    def _bad(self, path: Path, message: str, hint: str = "") -> None:
        self._report.add(path, self._source.value_mark(path), message, hint)

    def _bad_key(self, path: Path, message: str, hint: str = "") -> None:
        self._report.add(path, self._source.key_mark(path), message, hint)

    def names(self) -> None:
        """Names that would collide with emp's own programs, logs or states."""
        for name in self._services:
            if name in RESERVED_SERVICES:
                self._bad_key(("services", name), f"{quoted(name)} is a program of emp's own", "choose another name")
            elif _PROGRAM_SUFFIX.match(name):
                self._bad_key(
                    ("services", name),
                    "names that end in -gpuN or -installer belong to the programs of other services",
                    "choose another name",
                )
        for name in self._keys("machines"):
            if name in RESERVED_MACHINES:
                self._bad_key(("machines", name), f"{quoted(name)} has a meaning of its own", "choose another name")
        for machine_id, name in self._built.owner.items():
            if len(machine_id) > _MAX_NAME:
                self._bad_key(("machines", name), f"the name of its replica {machine_id} is longer than {_MAX_NAME}")
                break

    def references(self, document: dict[str, Any]) -> None:
        """Services named by machines, by defaults and by other services exist, even where something else is wrong."""
        self._known(("defaults", "services"), document.get("defaults"))
        for top, key in (("machines", "services"), ("pools", "services"), ("services", "depends_on")):
            entries = document.get(top)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                self._known((top, name, key), entry)

    def _known(self, path: Path, entry: Any) -> None:
        names = entry.get(path[-1]) if isinstance(entry, dict) else None
        for index, name in enumerate(names if isinstance(names, list) else ()):
            at = (*path, index)
            if isinstance(name, str) and name not in self._services and not self._report.covered(at):
                self._bad(
                    at, f"no service is called {found(self._source, at, name)}", did_you_mean(name, self._services)
                )

    def redis(self) -> None:
        redis = self._fleet.redis
        for name, url in (("url", redis.url), ("machine_url", redis.machine_url)):
            if url not in (EMBEDDED, "") and (wrong := redis_problem(url)):
                self._bad(("redis", name), wrong, _REDIS_FORMS)
        if redis.replicas and redis.url == EMBEDDED:
            self._bad(("redis", "replicas"), "the embedded Redis has no replicas", "name a Redis that has: redis.url")
        url = redis.machine_url or redis.url
        if url.startswith("unix://") and not all(m.traits.shares_host for m in self._fleet.machines):
            at = ("redis", "machine_url" if redis.machine_url else "url")
            message = "machines in containers and boxes that join cannot reach a socket of this host"
            self._bad(at, message, "redis: {machine_url: redis://HOST:PORT}")
        elif redis.url.startswith("unix://") and self._fleet.control.runtime is ControlRuntime.COMPOSE:
            message = "a control plane in a container (control.runtime) cannot reach a socket of this host"
            self._bad(("redis", "url"), message, "redis://host:port, or leave control.runtime out")

    def jobs(self) -> None:
        if url_holds_login(self._fleet.jobs.artifacts):
            self._bad(
                ("jobs", "artifacts"),
                "expected a URL without user and password",
                "put credentials into the environment, where the store's package looks for them",
            )
        if self._fleet.jobs.lease_s < _MIN_LEASE_S:
            shown = found(self._source, ("jobs", "lease"), f"{self._fleet.jobs.lease_s:g}s")
            self._bad(("jobs", "lease"), f"expected at least 1s, found {shown}", "a worker renews three times in it")
        inputs = self._fleet.jobs.inputs
        if inputs is not None and inputs.keep_s < _MIN_KEEP_S:
            shown = found(self._source, ("jobs", "inputs", "keep"), f"{inputs.keep_s:g}s")
            why = "a job that names an uploaded file must have the time to be queued"
            self._bad(("jobs", "inputs", "keep"), f"expected at least 1m, found {shown}", why)

    def endpoints(self) -> None:
        for name, endpoint in (("api", self._fleet.api), ("monitor", self._fleet.monitor)):
            if endpoint.token is None and not is_loopback(endpoint.host):
                shown = found(self._source, (name, "host"), endpoint.host)
                self._bad(
                    (name, "host"),
                    f"{shown} can be reached from elsewhere, so anyone there could command the fleet",
                    f"listen on 127.0.0.1, or require a token: {name}: {{token: {{env: EMP_TOKEN}}}}",
                )
        self._tokens()

    def _tokens(self) -> None:
        """Those of the API: there is one that may do everything, and no two have the same value by their reference."""
        api = self._fleet.api
        if api.tokens and api.token is None:
            self._bad_key(
                ("api", "tokens"),
                "they need api.token too: the token of emp's own processes and commands, which may do everything",
                "api: {token: {env: EMP_TOKEN}, tokens: …}",
            )
        taken = {} if api.token is None else {api.token.key: "api.token"}
        for token in api.tokens:
            here = f"api.tokens.{token.name}"
            for key, ref in token.refs:
                before = taken.setdefault(ref.key, f"{here}.{key}")
                if before != f"{here}.{key}":
                    message = f"this is the value of {before}, too"
                    self._bad(("api", "tokens", token.name, key), message, "give each token a value of its own")

    def service(self, service: Service) -> None:
        path: Path = ("services", service.name)
        if service.command is not None and service.builtin is not None:
            self._bad_key((*path, "builtin"), "expected either command or builtin, found both", "remove one")
        if service.command is None and service.builtin is None:
            self._bad_key(path, "expected a command or a builtin, found neither", "builtin: simulation")
        self._connector(service, path)
        if service.scale is Scale.ONCE:
            self._once(service, path)
        elif service.port is None:
            if service.builtin is not None:
                self._bad_key(path, f"builtin {service.builtin} needs a port to listen on", "port: 8188")
            if service.health is not None and (service.health.http or "${port}" in service.health.tcp):
                self._bad_key((*path, "health"), "this health check needs the service's port", "port: 8188")
        if service.health is not None:
            self._health(service.health, (*path, "health"))

    def _connector(self, service: Service, path: Path) -> None:
        """Its options, by the connector's own rules; the line is that of the option, or of what lacks one."""
        at: Path = (*path, "connector_options")
        if service.connector is None:
            if service.connector_options:
                self._bad_key(at, "there is no connector that takes them", "connector: http")
            return
        try:
            check_options(service.connector, service.connector_options)
        except WrongOption as e:
            there: Path = (*at, *filter(None, e.name.split(".")))
            if self._source.node(there) is not None:
                value = "" if e.found is None else f", found {found(self._source, there, e.found)}"
                self._bad_key(there, f"{e.what}{value}", e.hint)
                return
            above = there
            while self._source.node(above) is None:
                above = above[:-1]
            self._bad_key(above, f"connector {service.connector}: {e.name} {e.what}", e.hint)

    def _health(self, health: Health, path: Path) -> None:
        """One way to ask, and nothing that would not fit: ComfyUI's default counts only where no other is named."""
        given = {"http": health.http, "tcp": health.tcp, "command": health.command}
        named = [key for key, value in given.items() if value]
        if len(named) > 1:
            message = f"expected one of http, tcp and command, found {' and '.join(named)}"
            self._bad_key((*path, named[-1]), message, "keep the one that tells most")
        port = health.tcp.rpartition(":")[2]
        if port.isdecimal() and not 1 <= int(port) <= MAX_PORT:
            self._bad(
                (*path, "tcp"),
                f"expected a port from 1 to {MAX_PORT}, found {found(self._source, (*path, 'tcp'), port)}",
            )

    def _once(self, service: Service, path: Path) -> None:
        """A set-up step runs to its end, so nothing that asks for a running program makes sense."""
        present = {"health": service.health, "port": service.port, "builtin": service.builtin}
        for key, value in present.items():
            if value is not None:
                message = f"a service with scale once runs to its end: it has no {key}"
                self._bad_key((*path, key), message, "remove it, or choose scale per_machine")

    def cycles(self) -> None:
        """Each circle of depends_on once, at the service where it was entered."""
        if self._report.covered(("services",)):  # too many to walk
            return
        done: set[ServiceName] = set()
        for first in self._fleet.services:
            trail: list[ServiceName] = []
            self._walk(first, trail, done)

    def _walk(self, name: ServiceName, trail: list[ServiceName], done: set[ServiceName]) -> None:
        if name in trail:
            circle = [*trail[trail.index(name) :], name]
            self._bad(("services", name, "depends_on"), f"services wait for each other: {' → '.join(circle)}")
            return
        service = self._fleet.services.get(name)
        if service is None or name in done:
            return
        trail.append(name)
        for other in service.depends_on:
            self._walk(other, trail, done)
        trail.pop()
        done.add(name)

    def machine(self, path: Path, machine: Machine) -> None:
        """`path`: where it is described; the template of a pool is a machine too."""
        for index, service_name in enumerate(machine.services):
            if service_name in self._fleet.services:
                self._dependencies((*path, "services", index), self._fleet.services[service_name], machine)
        for service_name in machine.ports:
            if service_name not in machine.services:
                # Names of services stand in the file; what a machine lists may come from the environment.
                hint = did_you_mean(service_name, [s for s in machine.services if s in self._services])
                self._bad_key((*path, "ports", service_name), "this machine runs no such service", hint)
        self._gpus(path, machine)

    def _dependencies(self, path: Path, service: Service, machine: Machine) -> None:
        missing = [n for n in service.depends_on if n not in machine.services and n in self._services]
        if missing:
            needs = " and ".join(missing)
            self._bad(path, f"{service.name} depends on {needs}, not run by this machine", f"add {needs} to services")

    def _gpus(self, path: Path, machine: Machine) -> None:
        ids = machine.gpus.ids
        if ids and machine.gpus.kind is GpuKind.NONE:
            self._bad((*path, "gpus", "ids"), "device ids need kind: nvidia", "gpus: {kind: nvidia, ids: [...]}")
        elif ids and len(ids) != machine.num_gpus:
            message = f"expected {machine.num_gpus} ids, one for each of num_gpus, found {len(ids)}"
            self._bad((*path, "gpus", "ids"), message)
