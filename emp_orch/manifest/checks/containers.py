"""What emp.yaml says of containers and their hosts, as far as no schema can check it."""

from __future__ import annotations

from urllib.parse import urlsplit

from emp_orch.fleet.desired.artifacts import through_api
from emp_orch.fleet.model.fleet import EMBEDDED, ControlRuntime, DockerHost, Limits, Machine, Scale
from emp_orch.fleet.model.hosts import LOCAL, elsewhere, host_of, is_here, is_loopback
from emp_orch.manifest.build import Built
from emp_orch.manifest.checks.addresses import docker_problem
from emp_orch.manifest.show import found
from emp_orch.manifest.text.problems import Path, Report, did_you_mean, quoted
from emp_orch.manifest.text.tree import Mapping, Source
from emp_orch.urls import hosts_of

# Where a container keeps what is emp's own.
OWN_FOLDERS = ("/var/lib/emp", "/var/lib/emp-own", "/run/secrets", "/opt/emp", "/tmp", "/proc", "/sys", "/dev")  # noqa: S108
_FORMS = "unix:///SOCKET, ssh://user@host[:port] or tcp://host:port with tls"

_NOTHING = (None, (), Limits())


def check(built: Built, source: Source, report: Report) -> None:
    """Report all that does not hold together in hosts, and in what machines say of their containers."""
    checks = _Checks(built, source, report)
    for name, host in built.fleet.hosts.items():
        checks.host(name, host)
    for name, machine in built.entries.items():
        if machine.traits.in_container:
            checks.container(("machines", name), machine)
        else:
            checks.not_one(("machines", name), machine)
    checks.reach()
    checks.control()


class _Checks:
    def __init__(self, built: Built, source: Source, report: Report) -> None:
        self._built = built
        self._fleet = built.fleet
        self._source = source
        self._report = report
        hosts = source.node(("hosts",))
        # A host that is broken is no longer in the fleet, but a machine that names it is right.
        self._hosts = [LOCAL, *(hosts.values if isinstance(hosts, Mapping) else ())]

    def _bad(self, path: Path, message: str, hint: str = "") -> None:
        self._report.add(path, self._source.value_mark(path), message, hint)

    def _bad_key(self, path: Path, message: str, hint: str = "") -> None:
        self._report.add(path, self._source.key_mark(path), message, hint)

    def host(self, name: str, host: DockerHost) -> None:
        path: Path = ("hosts", name)
        if wrong := docker_problem(host.docker):
            self._bad((*path, "docker"), wrong, _FORMS)
        elif name == LOCAL and not host.docker.startswith("unix://"):
            message = "local is the engine of this host, reached by its socket"
            self._bad((*path, "docker"), message, "docker: unix:///SOCKET, or give that host another name")
        elif host.tls is not None and not host.docker.startswith("tcp://"):
            self._bad_key((*path, "tls"), "only a tcp:// address has tls", "remove it")
        elif host.tls is None and host.docker.startswith("tcp://") and not is_here(host):
            message = "without tls, whoever reaches this engine commands its host as root"
            self._bad((*path, "docker"), message, "add tls: {ca: FILE, cert: FILE, key: FILE}, or use ssh://user@host")

    def not_one(self, path: Path, machine: Machine) -> None:
        """In `defaults` these may stand for the compose machines among others; on a machine they would do nothing. What
        the box of an external machine runs by Docker is made by the line of `emp machine join`.
        """
        joins = machine.traits.joins
        if joins:
            self._volumes(path, machine)
        for key in ("host", "publish") if joins else ("host", "image", "publish", "volumes", "limits"):
            if getattr(machine, key) not in _NOTHING and self._source.node((*path, key)) is not None:
                self._bad_key((*path, key), f"of no effect with runtime {machine.runtime}", "runtime: compose")

    def container(self, path: Path, machine: Machine) -> None:
        if host_of(machine) not in self._hosts:
            shown = found(self._source, (*path, "host"), host_of(machine))
            hint = did_you_mean(host_of(machine), self._hosts)
            self._bad((*path, "host"), f"no host is called {shown}", hint)
        self._publish(path, machine)
        self._volumes(path, machine)
        kinds = {i.isdecimal() for i in machine.gpus.ids}
        if len(kinds) > 1:
            message = "expected only indices or only UUIDs: a container numbers its devices anew"
            self._bad((*path, "gpus", "ids"), message)

    def _publish(self, path: Path, machine: Machine) -> None:
        for index, name in enumerate(machine.publish):
            at = (*path, "publish", index)
            service = self._fleet.services.get(name)
            if name not in machine.services:
                shown = found(self._source, at, name)
                # Names of services stand in the file; what a machine lists may come from the environment.
                known = [s for s in machine.services if s in self._fleet.services]
                self._bad(at, f"this machine runs no service {shown}", did_you_mean(name, known))
            elif service is not None and (service.port is None or service.scale is Scale.ONCE):
                self._bad(at, f"service {name} has no port to publish", f"give it a port, or leave {name} out")

    def _volumes(self, path: Path, machine: Machine) -> None:
        taken: set[str] = set()
        for index, volume in enumerate(machine.volumes):
            at = (*path, "volumes", index)
            target = "/" + "/".join(filter(None, volume.target.split("/")))
            if _steps(volume.source) or _steps(volume.target):
                self._bad(at, "expected paths without . and ..")
            elif any(_within(target, own) or _within(own, target) for own in OWN_FOLDERS):
                message = f"{quoted(volume.target)} in the container is not free for a folder of the host"
                self._bad(at, message, f"choose a folder apart from {', '.join(OWN_FOLDERS)}")
            elif target in taken:
                self._bad(at, f"{quoted(volume.target)} in the container stands here twice")
            taken.add(target)

    def reach(self) -> None:
        """Machines on other hosts find neither this host's loopback nor its folders. Told once, at the first."""
        first = next(((n, m) for n, m in self._built.entries.items() if elsewhere(self._fleet, m)), None)
        if first is None:
            return
        at: Path = ("machines", first[0], "host")
        fleet, host = self._fleet, host_of(first[1])
        url = fleet.redis.machine_url or fleet.redis.url
        if self._report.sound(("redis",)) and (url == EMBEDDED or any(map(is_loopback, hosts_of(url)))):
            what = "the embedded Redis" if url == EMBEDDED else "a Redis on this host's loopback"
            self._bad(at, f"{host} is another host, and cannot reach {what}", "redis: {machine_url: redis://HOST:PORT}")
        if self._report.sound(("jobs",)) and self._report.sound(("api",)) and through_api(fleet, first[1]):
            self._way_to_api(at, host)

    def _way_to_api(self, at: Path, host: str) -> None:
        """Files of jobs go through the API where a machine does not see the store."""
        url = self._fleet.api.machine_url
        if url and not is_loopback(urlsplit(url).hostname or ""):
            return
        why = f"{url} is this host's own" if url else "api.machine_url does not say how it reaches that"
        message = (
            f"{host} is another host, and does not see the artifact store: files of jobs go through the API, and {why}"
        )
        way = "api: {host: 0.0.0.0, token: {env: EMP_TOKEN}, machine_url: http://HOST:3331}"
        self._bad(at, message, f"{way}, or jobs: {{artifacts: s3://BUCKET/FOLDER}} and `emp images build --store s3`")

    def control(self) -> None:
        """A control plane in a container has this host's ports and its fleet's folder; no processes, no keys."""
        control = self._fleet.control
        if not self._report.sound(("control",)):
            return
        if control.runtime is ControlRuntime.PROCESS:
            for key in ("image", "redis_image"):
                if self._source.node(("control", key)) is not None:
                    self._bad_key(("control", key), "of no effect with runtime process", "runtime: compose")
            return
        for name, machine in self._built.entries.items():
            if machine.traits.shares_host:
                message = "a control plane in a container (control.runtime) cannot start processes on this host"
                self._bad(("machines", name, "runtime"), message, "runtime: compose, or leave control.runtime out")
            elif machine.traits.in_container:
                self._in_sight(host_of(machine))

    def _in_sight(self, name: str) -> None:
        host, path = self._fleet.hosts.get(name), ("hosts", name)
        if host is None or not self._report.sound(path):
            return
        if host.docker.startswith("ssh://"):
            message = "a control plane in a container (control.runtime) has no keys for ssh"
            self._bad((*path, "docker"), message, "docker: tcp://HOST:2376 with tls")
        for key in ("ca", "cert", "key") if host.tls else ():
            file = getattr(host.tls, key)
            if file.startswith("/") or _steps(file):
                message = "a control plane in a container (control.runtime) sees only the folder of emp.yaml"
                self._bad((*path, "tls", key), message, "put the file there, and write its relative path")


def _steps(path: str) -> bool:
    return any(step in (".", "..") for step in path.split("/"))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
