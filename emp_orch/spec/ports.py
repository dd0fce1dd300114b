"""Which ports a fleet takes, and where two programs would want the same one."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from emp_orch.fleet.desired import program_port
from emp_orch.fleet.model import EMBEDDED, Fleet, Machine, RuntimeKind, Scale
from emp_orch.spec.build import PORT_STEP, Built
from emp_orch.spec.problems import Path, Report
from emp_orch.spec.tree import Source

_MAX_PORT = 65535


class Listener(Struct, frozen=True, kw_only=True):
    """Something that takes the ports first … last. `key` names its place in the file without replicas."""

    what: str
    key: Path
    service: str
    first: int
    last: int


def check(built: Built, source: Source, report: Report) -> None:
    """Report ports out of range, and clashes on one machine or among all that share this host."""
    _Ports(built, source, report).check()


class _Ports:
    def __init__(self, built: Built, source: Source, report: Report) -> None:
        self._built = built
        self._source = source
        self._report = report
        self._told: set[tuple[Path, Path]] = set()

    def check(self) -> None:
        taken: dict[int, Listener] = {}
        for listener in self._control_plane():
            self._claim(taken, listener)
        for machine in self._built.fleet.machines:
            if not self._report.sound(("machines", self._built.owner[machine.id])):
                continue
            own: dict[int, Listener] = {}
            for listener in _listeners(self._built.fleet, machine, self._built.owner[machine.id]):
                if listener.last > _MAX_PORT:
                    self._out_of_range(listener, machine)
                elif self._claim(own, listener) and machine.runtime is RuntimeKind.PROCESS:
                    self._claim(taken, listener)

    def _control_plane(self) -> Iterator[Listener]:
        """What the control plane listens on; a broken part is not judged by its defaults."""
        fleet = self._built.fleet
        ports = {"api": fleet.api.port, "monitor": fleet.monitor.port}
        if fleet.redis.url == EMBEDDED:
            ports["redis"] = fleet.redis.port
        for name, port in ports.items():
            if self._report.sound((name,)):
                what = "the embedded Redis" if name == "redis" else f"the {name}"
                yield Listener(what=what, key=(name, "port"), service="", first=port, last=port)

    def _claim(self, taken: dict[int, Listener], listener: Listener) -> bool:
        """Whether all ports of `listener` were free; the first that was not is reported."""
        for port in range(listener.first, listener.last + 1):
            other = taken.setdefault(port, listener)
            if other is not listener:
                self._clash(port, listener, other)
                return False
        return True

    def _clash(self, port: int, listener: Listener, other: Listener) -> None:
        if (listener.key, other.key) in self._told:
            return
        self._told.add((listener.key, other.key))
        hint = "choose another port"
        if listener.service:
            hint = f"give this machine another: ports: {{{listener.service}: {_free_port(listener)}}}"
        mark = self._source.key_mark(listener.key)
        self._report.add(listener.key, mark, f"port {port} of {listener.what} is taken by {other.what}", hint)

    def _out_of_range(self, listener: Listener, machine: Machine) -> None:
        if (listener.key, ()) not in self._told:
            self._told.add((listener.key, ()))
            hint = "take a lower port"
            if machine.port_offset:
                hint = f"take a lower port, or fewer replicas: each adds {PORT_STEP}"
            mark = self._source.key_mark(listener.key)
            self._report.add(listener.key, mark, f"{listener.what} needs port {listener.last}, above {_MAX_PORT}", hint)


def _free_port(listener: Listener) -> int:
    """A base port to suggest: another hundred, which keeps slots and their order readable."""
    return listener.first + PORT_STEP if listener.last + PORT_STEP <= _MAX_PORT else listener.first - PORT_STEP


def _listeners(fleet: Fleet, machine: Machine, entry: str) -> Iterator[Listener]:
    """All that `machine` listens on."""
    for name in machine.services:
        service = fleet.services.get(name)
        if service is None or service.scale is Scale.ONCE:
            continue
        slots = machine.num_gpus if service.scale is Scale.PER_GPU else 1
        first = program_port(machine, service, 0)
        if first is not None and slots:
            key: Path = ("machines", entry, "ports", name) if name in machine.ports else ("machines", entry)
            what = f"{name} of {machine.id}"
            yield Listener(what=what, key=key, service=name, first=first, last=first + slots - 1)
    if machine.health_port:
        port = machine.health_port
        what = f"the health server of {machine.id}"
        yield Listener(what=what, key=("machines", entry, "health_port"), service="", first=port, last=port)
