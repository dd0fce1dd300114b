"""Checks of this host and of the fleet's folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem, count, known
from emp_orch.control.host import generation as generations
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.host.freespace import NEEDED_BYTES
from emp_orch.settings import Settings
from emp_orch.store.fleet.generations import Generation

MIN_PYTHON = (3, 11)
# Below NEEDED_BYTES nothing is started; below this it is time to do something.
SCARCE_BYTES = 2 * 1024**3


def _python(facts: Facts) -> Iterator[Problem]:
    if sys.version_info[:2] < MIN_PYTHON:
        yield Problem(what=f"Python {_version()} is too old, 3.11 is needed", fix="install emp with a newer Python")


def _version() -> str:
    return ".".join(str(n) for n in sys.version_info[:3])


def _emp_yaml(facts: Facts) -> Iterator[Problem]:
    if facts.fleet is None:
        yield Problem(
            what=f"there is no emp.yaml in {facts.layout.root}",
            fix="emp init, or name the fleet's folder with `emp -C DIR doctor`",
            level=Level.WARN,
        )
    elif isinstance(facts.fleet, Unknown):
        yield Problem(what=facts.fleet.reason, fix="emp validate names every problem in it", where="emp.yaml")
    elif isinstance(facts.wanted, Unknown):
        yield Problem(
            what=facts.wanted.reason,
            fix="correct that before the next emp apply; what runs keeps the values it was given",
            where="emp.yaml",
            level=Level.WARN,
        )


def _applied(facts: Facts) -> Iterator[Problem]:
    """Whether what runs is what emp.yaml says now."""
    generation = facts.generation
    if isinstance(generation, Unknown):
        yield Problem(what=generation.reason, fix="emp apply", where=str(facts.layout.generation))
    elif generation is None:
        yield Problem(what="no fleet was applied in this folder yet", fix="emp apply", level=Level.WARN)
    elif isinstance(facts.fleet, Fleet) and generations.digest(facts.fleet) != generation.digest:
        yield Problem(
            what=f"emp.yaml, with the environment as it is here, asks for something else than generation "
            f"{generation.number}, which runs",
            fix="emp apply shows what would change, and asks",
            where="emp.yaml",
            level=Level.WARN,
        )
    elif isinstance(facts.wanted, Settings) and isinstance(facts.settings, Settings) and facts.wanted != facts.settings:
        yield Problem(
            what="emp.yaml asks for another Redis, API, page or Docker host than the ones in use",
            fix="emp apply; when it is Redis that moves, emp down before",
            where="emp.yaml",
            level=Level.WARN,
        )


def _folders(facts: Facts) -> Iterator[Problem]:
    folder = facts.folder
    user = "run emp as the user who owns it, or change its owner (chown -R)"
    if not folder.state.exists and not folder.root.writable:
        yield Problem(what="the fleet's folder cannot be written", fix=user, where=folder.root.path)
    for path in (folder.state, folder.logs):
        if path.exists and not path.writable:
            yield Problem(
                what=f"cannot be written by this user (its owner is uid {path.owner})", fix=user, where=path.path
            )
        elif path.exists and not path.mine:
            yield Problem(what=f"belongs to uid {path.owner}", fix=user, where=path.path, level=Level.WARN)
    for path in folder.private:
        if path.exists and path.mode & 0o077:
            yield Problem(
                what=f"may hold passwords, and others may read it (mode {path.mode:04o})",
                fix=f"chmod 600 {path.path}",
                where=path.path,
            )


def _whose(facts: Facts) -> Iterator[Problem]:
    if facts.trouble is not None:
        yield Problem(what=facts.trouble.what, fix=facts.trouble.fix, where=facts.folder.root.path)


def _disk(facts: Facts) -> Iterator[Problem]:
    for name, free in facts.free.items():
        where = str(facts.layout.state if name == "state" else facts.layout.logs)
        if free < SCARCE_BYTES:
            yield Problem(
                what=f"only {free // 1024**2} MiB free",
                fix="free some space; `emp logs --clear` empties the logs",
                where=where,
                level=Level.FAIL if free < NEEDED_BYTES else Level.WARN,
            )


def _fine_yaml(facts: Facts) -> str:
    fleet = known(facts.fleet)
    return f"emp.yaml is valid: fleet {fleet.name}, {count(fleet.machines, 'machine')}" if fleet else ""


def _fine_applied(facts: Facts) -> str:
    return f"generation {facts.generation.number} is applied" if isinstance(facts.generation, Generation) else ""


def _fine_disk(facts: Facts) -> str:
    return f"{min(facts.free.values()) // 1024**3} GiB free for state and logs"


CHECKS = (
    Check(name="python", group=Group.BASICS, fine=lambda _: f"Python {_version()}", find=_python),
    Check(name="emp-yaml", group=Group.BASICS, fine=_fine_yaml, find=_emp_yaml),
    Check(name="applied", group=Group.BASICS, fine=_fine_applied, find=_applied),
    Check(
        name="folders",
        group=Group.BASICS,
        fine=lambda _: "the folders are ours, and secrets are private",
        find=_folders,
    ),
    Check(name="whose", group=Group.BASICS, fine=lambda _: "what runs here is this folder's", find=_whose),
    Check(name="disk", group=Group.BASICS, fine=_fine_disk, find=_disk),
)
