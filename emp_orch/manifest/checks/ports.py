"""Which ports a fleet takes, and where two programs would want the same one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping

from msgspec import Struct

from emp_orch.fleet.desired.addresses import program_port
from emp_orch.fleet.model.fleet import EMBEDDED, Fleet, Machine, MachineId, Scale
from emp_orch.fleet.model.hosts import elsewhere, host_of
from emp_orch.manifest.build import PORT_STEP, Built
from emp_orch.manifest.text.problems import Path, Report
from emp_orch.manifest.text.tree import Source

_MAX_PORT = 65535
_HERE = ""


class Listener(Struct, frozen=True, kw_only=True):
    """Something that takes the ports first … last. `key` names its place in the file without replicas."""

    what: str
    key: Path
    service: str
    first: int
    last: int


class Conflict(Struct, frozen=True, kw_only=True):
    """`listener` cannot have `port`: `other` has it, or it is above all ports. `hint` is a way out within emp.yaml."""

    listener: Listener
    port: int
    other: Listener | None
    hint: str

    @property
    def text(self) -> str:
        if self.other is None:
            return f"{self.listener.what} needs port {self.port}, above {_MAX_PORT}"
        return f"port {self.port} of {self.listener.what} is taken by {self.other.what}"


def check(built: Built, source: Source, report: Report) -> None:
    """Report ports out of range, and clashes on one machine or among all that share a host."""
    for conflict in conflicts(built.fleet, built.owner, report.sound):
        key = conflict.listener.key
        report.add(key, source.key_mark(key), conflict.text, conflict.hint)


def conflicts(
    fleet: Fleet, owner: Mapping[MachineId, str], sound: Callable[[Path], bool] = lambda _: True
) -> Iterator[Conflict]:
    """Each conflict once. `owner` is the key in emp.yaml of each machine; what is not `sound` is not judged."""
    return _Ports(fleet, owner, sound).conflicts()


class _Ports:
    def __init__(self, fleet: Fleet, owner: Mapping[MachineId, str], sound: Callable[[Path], bool]) -> None:
        self._fleet = fleet
        self._owner = owner
        self._sound = sound
        self._told: set[tuple[Path, Path]] = set()

    def conflicts(self) -> Iterator[Conflict]:
        taken: dict[str, dict[int, Listener]] = {}
        for listener in self._control_plane():
            yield from self._claim(taken.setdefault(_HERE, {}), listener)
        for machine in self._fleet.machines:
            if self._sound(("machines", self._owner[machine.id])):
                yield from self._of_machine(taken.setdefault(self._place(machine), {}), machine)

    def _place(self, machine: Machine) -> str:
        """Machines of one place share its ports."""
        host = self._fleet.hosts.get(host_of(machine))
        return host.docker if host is not None and elsewhere(self._fleet, machine) else _HERE

    def _of_machine(self, taken: dict[int, Listener], machine: Machine) -> Iterator[Conflict]:
        """`taken` are the ports of the host that runs it. A container's own are its own, but for those published."""
        own: dict[int, Listener] = {}
        for listener in _listeners(self._fleet, machine, self._owner[machine.id]):
            if listener.last > _MAX_PORT:
                yield from self._out_of_range(listener, machine)
                continue
            clash = yield from self._claim(own, listener)
            if not clash and _on_host(machine, listener):
                yield from self._claim(taken, listener)

    def _control_plane(self) -> Iterator[Listener]:
        """What the control plane listens on; a broken part is not judged by its defaults."""
        fleet = self._fleet
        ports = {"api": fleet.api.port, "monitor": fleet.monitor.port}
        if fleet.redis.url == EMBEDDED:
            ports["redis"] = fleet.redis.port
        for name, port in ports.items():
            if self._sound((name,)):
                what = "the embedded Redis" if name == "redis" else f"the {name}"
                yield Listener(what=what, key=(name, "port"), service="", first=port, last=port)

    def _claim(self, taken: dict[int, Listener], listener: Listener) -> Generator[Conflict, None, bool]:
        """Whether a port of `listener` was taken already; the first that was is told."""
        for port in range(listener.first, listener.last + 1):
            other = taken.setdefault(port, listener)
            if other is not listener:
                yield from self._clash(port, listener, other)
                return True
        return False

    def _clash(self, port: int, listener: Listener, other: Listener) -> Iterator[Conflict]:
        if (listener.key, other.key) in self._told:
            return
        self._told.add((listener.key, other.key))
        hint = "choose another port"
        if listener.service:
            hint = f"give this machine another: ports: {{{listener.service}: {_free_port(listener)}}}"
        yield Conflict(listener=listener, port=port, other=other, hint=hint)

    def _out_of_range(self, listener: Listener, machine: Machine) -> Iterator[Conflict]:
        if (listener.key, ()) in self._told:
            return
        self._told.add((listener.key, ()))
        fewer = f"take a lower port, or fewer replicas: each adds {PORT_STEP}"
        hint = fewer if machine.port_offset else "take a lower port"
        yield Conflict(listener=listener, port=listener.last, other=None, hint=hint)


def _on_host(machine: Machine, listener: Listener) -> bool:
    """Whether `listener` takes ports of the host that runs its machine."""
    traits = machine.traits
    return traits.shares_host or (traits.in_container and listener.service in machine.publish)


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
