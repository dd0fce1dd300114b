"""`inherit`: which names are refused, and what is worth a word before programs run without a variable."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from emp_orch import environments
from emp_orch.fleet.model.fleet import Fleet, Machine, Service
from emp_orch.manifest.build import Built
from emp_orch.manifest.text.problems import Path, Report, quoted
from emp_orch.manifest.text.tree import Source

# What emp tells its programs: somebody's shell must not say otherwise.
_EMPS_OWN = frozenset({"MACHINE_ID", "NUM_GPUS", "REDIS_URL", "HUB_REDIS_URL", "HUB_REDIS_URL_FILE"})
_PREFIXES = ("EMP_", "SUPERVISOR_")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)[}:-])")


def check(built: Built, source: Source, report: Report) -> None:
    """Report names that are emp's own, and those that `env` gives beside it."""
    for service in built.fleet.services.values():
        _check(("services", service.name), service, source, report)
    for name, machine in built.entries.items():
        _check(("machines", name), machine, source, report)


def _check(path: Path, of: Service | Machine, source: Source, report: Report) -> None:
    for index, name in enumerate(of.inherit):
        at: Path = (*path, "inherit", index)
        if source.node(at) is None:  # it stands in defaults
            at = ("defaults", "inherit", index)
        if name in _EMPS_OWN or name.startswith(_PREFIXES):
            report.add(at, source.value_mark(at), f"{quoted(name)} is emp's own", "remove it")
        elif name in of.env:
            what = f"{quoted(name)} has its value in env already"
            report.add(at, source.value_mark(at), what, "keep one: env gives a value, inherit takes that of a shell")


def notes_unset(fleet: Fleet, known: Collection[str]) -> Iterator[str]:
    """One line for each name that is to be inherited, and is not among those `known` where the fleet is applied."""
    for where, of in _asking(fleet):
        for name in of.inherit:
            if name not in known:
                yield f"{of.origin}: note: {where}.inherit: {name} is not set here: its programs run without it"


def _asking(fleet: Fleet) -> Iterator[tuple[str, Service | Machine]]:
    for service in fleet.services.values():
        yield f"services.{service.name}", service
    told = set()
    for machine in fleet.machines:
        if machine.origin not in told:  # replicas stand in one place
            told.add(machine.origin)
            yield f"machines.{machine.id}", machine


def notes_missed(fleet: Fleet, environ: Mapping[str, str]) -> Iterator[str]:
    """One line for each variable of this shell that a command names, and that nothing gives to its program."""
    for service in fleet.services.values():
        machines = [m for m in fleet.machines if service.name in m.services]
        for name in _named(service):
            if name in environ and machines and not all(_has(name, service, m) for m in machines):
                what = f"its command names ${name}, which is set here and does not reach programs by itself"
                yield f"{service.origin}: note: services.{service.name}: {what}: inherit: [{name}] hands it on"


def _named(service: Service) -> list[str]:
    install = service.install.command if service.install is not None else ()
    text = "\n".join((*(service.command or ()), *install))
    return sorted({plain or braced for plain, braced in _VARIABLE.findall(text)} - {"port", "gpu", "machine_id"})


def _has(name: str, service: Service, machine: Machine) -> bool:
    given = (*machine.env, *service.env, *machine.inherit, *service.inherit, *_EMPS_OWN)
    return name in given or name.startswith(_PREFIXES) or environments.passes(environments.MACHINE, name)
