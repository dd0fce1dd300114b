"""The fleets of this user on this host, by the marks of their processes; one of them by its name, id or folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from emp_orch import marks, settings
from emp_orch.errors import UsageError
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.marks import Marked
from emp_orch.procident import started_ms


class Hosted(Struct, frozen=True, kw_only=True):
    """`name` is empty where `.emp/` tells none. `folder` None: it is gone; `applied_in` is what it was called then."""

    id: str
    name: str
    folder: Path | None
    applied_in: Path
    machines: tuple[str, ...]
    processes: int
    since_ms: int

    @property
    def words(self) -> str:
        called = self.name or self.id
        if self.folder is None:
            return f"{called} of {self.applied_in}, which is gone"
        moved = "" if self.folder == self.applied_in else f", moved from {self.applied_in}"
        return f"{called} in {self.folder}{moved}"


def hosted() -> tuple[Hosted, ...]:
    """Every fleet that has a process here which this user may look into, by name and folder."""
    fleets: dict[tuple[int, int, int, str], list[Marked]] = {}
    for one in filter(_outside_containers, marks.marked()):
        fleets.setdefault((*one.mark.place, one.mark.fleet), []).append(one)
    return tuple(sorted(map(_hosted, fleets.values()), key=lambda f: (f.name, str(f.applied_in))))


def _outside_containers(one: Marked) -> bool:
    """A machine in a container is marked with a folder of its own there, and known by its labels here."""
    try:
        return Path(f"/proc/{one.who.pid}/ns/pid").stat().st_ino == Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return False


def _hosted(found: list[Marked]) -> Hosted:
    folder = ownership.present(found)
    first = min(found, key=lambda one: one.who.start_ticks)
    return Hosted(
        id=first.mark.fleet or "-",
        name=_name(folder, first.mark.fleet) if folder is not None else "",
        folder=folder,
        applied_in=Path(first.folder),
        machines=tuple(sorted({one.mark.machine for one in found} - {""})),
        processes=len(found),
        since_ms=started_ms(first.who),
    )


def _name(folder: Path, fleet: str) -> str:
    """What the fleet calls itself, where the folder still tells of this one."""
    told = marks.told_in(folder)
    known = settings.known(Layout(folder)) if told is not None and told[0].fleet == fleet else None
    return known.fleet if known else ""


def fleet_of(pid: int) -> str:
    """Whose process `pid` is, in words; empty when no fleet that we may look into began it."""
    one = marks.owner_of(pid)
    return f"fleet {_hosted([one]).words}" if one is not None else ""


def processes_of(fleet: Hosted) -> list[Marked]:
    """Its processes as they are now."""
    return [
        one for one in marks.marked() if (one.mark.fleet or "-") == fleet.id and Path(one.folder) == fleet.applied_in
    ]


def named(name: str, fleets: Iterable[Hosted]) -> Hosted:
    """The fleet called `name`: its id, its name, or the folder where it is or was. Raises UsageError naming all."""
    known = tuple(fleets)
    path = Path(os.path.abspath(name)) if "/" in name or name in (".", "..") else None  # noqa: PTH100  # may be gone
    found = [f for f in known if name in (f.id, f.name) or (path is not None and path in (f.folder, f.applied_in))]
    if len(found) == 1:
        return found[0]
    shown = "\n".join(f"  {f.words}" for f in found or known)
    if found:
        raise UsageError(f"several fleets are called {name!r}:\n{shown}", hint="name one by its id or its folder")
    lines = f"; there are:\n{shown}" if known else ": no fleet of this user does"
    raise UsageError(f"no fleet {name!r} runs on this host{lines}", hint="`emp status --host` shows them")
