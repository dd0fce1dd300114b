"""Whose a fleet's folder is: the fleet's own, the same under a new name, or a copy; and what of the fleet runs here.

What stands in `.emp/` can be copied, moved and removed while the fleet runs. So it is held against the folder that it
lies in, and against the marks that the processes carry.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from emp_orch import marks
from emp_orch.errors import EmpError, Exit, UsageError
from emp_orch.host.users import other_owner
from emp_orch.marks import Mark, Marked


class CopiedFolder(UsageError):
    """What `.emp/` here says is of another folder's fleet."""

    def __init__(self, root: Path, original: Path) -> None:
        super().__init__(
            f"{root} is a copy of {original}: its .emp/ is that fleet's, and nothing that runs belongs to this folder",
            hint="`emp init --own` here makes it a fleet of its own, without generations and jobs; "
            "give it other ports in emp.yaml",
        )
        self.original = original


class ForeignFolder(EmpError):
    """What `.emp/` here tells is for its owner alone."""

    exit_code = Exit.UNREACHABLE

    def __init__(self, root: Path) -> None:
        owner = other_owner(root / ".emp")
        whose = f"{owner}'s" if owner else "not ours to read"
        super().__init__(
            f"the fleet in {root} is {whose}: its state in .emp/ may only be read by its owner",
            hint=f"run emp as {owner or 'its owner'}; anybody who may reach them can use its page and API",
        )


class MovedFolder(UsageError):
    """The fleet runs as it was started: with the paths that the folder had then."""


class Whose(Struct, frozen=True, kw_only=True):
    """`mark` is the folder's own. `moved_from`: where its fleet was applied, when that is not the way to it any more.

    `lost`: what runs of this folder is not what its `.emp/` tells of: that was removed, and perhaps made anew.
    """

    root: Path
    mark: Mark
    running: tuple[Marked, ...]
    moved_from: Path | None = None
    lost: bool = False

    @property
    def count(self) -> str:
        return f"{len(self.running)} process{'' if len(self.running) == 1 else 'es'}"

    @property
    def trouble(self) -> MovedFolder | None:
        """What keeps anybody from going on with what runs; only its end helps."""
        if self.lost:
            return MovedFolder(
                f"{self.root}/.emp/ was removed while its fleet ran: {self.count} left, out of reach",
                hint="`emp down` here ends them; then `emp apply` starts anew, without generations and jobs of before",
            )
        if self.moved_from is not None:
            return MovedFolder(
                f"{self.root} was moved from {self.moved_from} while its fleet ran: {self.count} left, with old paths",
                hint="`emp down` here ends them; then `emp apply` goes on here, with its generations and jobs",
            )
        return None


def look(root: Path) -> Whose:
    """Whose folder `root` is, and its processes, by their marks. Raises CopiedFolder, ForeignFolder, OSError."""
    refuse_copies(root)
    mark, told = marks.of_folder(root), _told_in(root)
    found = [one for one in marks.marked() if _is_ours(one, mark, told[0] if told else None)]
    moved = Path(told[1]) if told is not None and found and not _leads_to(Path(told[1]), mark) else None
    if moved is None and told is None:
        moved = next((Path(f) for _, _, f in found if not _leads_to(Path(f), mark)), None)
    lost = any(one.mark.fleet != mark.fleet for one in found)
    return Whose(root=root, mark=mark, running=tuple(found), moved_from=moved, lost=lost)


def refuse_to_apply(root: Path) -> None:
    """Raise MovedFolder where something runs that only `emp down` can end, CopiedFolder in a copy."""
    from emp_orch.procident import alive, recorded  # not for those who only want to know whose folder it is

    told, plane = _told_in(root), recorded(root / ".emp" / "control" / "run" / marks.SUPERVISORD)
    if told is not None and plane is not None and alive(plane) and _leads_to(Path(told[1]), told[0]):
        return  # as always: nobody needs to be looked for
    if (trouble := look(root).trouble) is not None:
        raise trouble


def _is_ours(one: Marked, mark: Mark, told: Mark | None) -> bool:
    if one.mark.place == mark.place:
        return True
    if told is None or not told.fleet or one.mark.fleet != told.fleet:
        return False
    # The fleet's id is this folder's alone; or its folder is gone: this was made of it on another file system.
    return told.place == mark.place or present([one]) is None


def _told_in(root: Path) -> tuple[Mark, str] | None:
    try:
        return marks.told_in(root)
    except PermissionError as e:
        raise ForeignFolder(root) from e


def refuse_copies(root: Path) -> None:
    """Raise CopiedFolder when what stands in `root`/.emp belongs to another folder. Costs a read where it does not."""
    told = _told_in(root)
    if told is None:
        return
    here = root.stat()
    if (here.st_dev, here.st_ino) != (told[0].dev, told[0].inode) and (original := _original(root, *told)):
        raise CopiedFolder(root, original)


def refuse_strangers(root: Path) -> None:
    """For a part of a fleet: raise EmpError when `root` is no longer the folder that it was started for."""
    carried = marks.carried(os.environ)
    if carried is None or carried[1] != root:
        return
    try:
        here = root.stat()
    except FileNotFoundError:
        raise _gone(root) from None
    if (here.st_dev, here.st_ino) != (carried[0].dev, carried[0].inode):
        raise _gone(root)


def _gone(root: Path) -> EmpError:
    return EmpError(
        f"{root} is no longer this fleet's folder: it was moved or removed",
        hint="`emp down` where it is now, or `emp status --host` and `emp down --all-of NAME`, and apply again",
    )


def _original(root: Path, told: Mark, path: str) -> Path | None:
    """Where the folder is that `told` and `path` tell of, when that is another than `root`; None when it is gone."""
    mark = marks.of_folder(root)
    if told.birth_ns and (told.inode, told.birth_ns) == (mark.inode, mark.birth_ns):
        return None  # the file system has another number since the host was started
    if Path(path) != root and _leads_to(Path(path), told):
        return Path(path)
    where = present(one for one in marks.marked() if told.fleet and one.mark.fleet == told.fleet)
    return None if where is None or _leads_to(where, mark) else where


def _leads_to(path: Path, mark: Mark) -> bool:
    try:
        return marks.of_folder(path).place == mark.place
    except OSError:
        return False


def present(found: Iterable[Marked]) -> Path | None:
    """Where the folder of these processes is now: where they were started, or where they still work. None: gone."""
    for one in found:
        for path in (Path(one.folder), _working_in(one.who.pid)):
            if path is not None and _leads_to(path, one.mark):
                return path
    return None


def _working_in(pid: int) -> Path | None:
    """The folder whose `.emp/` process `pid` works in: the kernel follows a move."""
    try:
        home = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
    return next((path.parent for path in (home, *home.parents) if path.name == ".emp"), home)
