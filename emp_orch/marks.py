"""Whose a process is: the mark of its fleet that it carries in its environment, and the search for all that carry one.

`EMP_MARK=dev:inode:birth_ns:fleet:machine:program`, `EMP_FLEET_FOLDER=path when started`. The first three are of the
fleet's root folder: a copy of it has others, a move within the file system keeps them, and an inode that is used anew
has another birth. `fleet` is a random id that the folder's first apply makes; `machine` is empty for the control plane.
Source: statx(2), proc(5). Linux only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from emp_orch.procident import ProcessIdentity  # imported where processes are looked for: most only want a folder

MARK = "EMP_MARK"
FOLDER = "EMP_FLEET_FOLDER"
SUPERVISORD = "supervisord"
# An environment may be as large as a third of the stack's limit; of a larger one no more is read.
_ENVIRON_BYTES = 4 * 1024 * 1024
# statx(2): relative to the working directory, ask for the birth; where its seconds and nanoseconds lie in the answer.
_AT_FDCWD, _STATX_BTIME, _BTIME_AT, _STATX_BYTES = -100, 0x800, 80, 256


class Mark(NamedTuple):
    """`birth_ns` is 0 where the file system tells none. `fleet` is empty for a folder that was never applied."""

    dev: int
    inode: int
    birth_ns: int
    fleet: str
    machine: str = ""
    program: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """Which folder it is, wherever that lies now."""
        return self.dev, self.inode, self.birth_ns

    def of(self, machine: str, program: str) -> Mark:
        return self._replace(machine=machine, program=program)

    def __str__(self) -> str:
        return ":".join(map(str, tuple(self)))


class Marked(NamedTuple):
    """A living process, its mark, and the folder as it was called when the process was started."""

    who: ProcessIdentity
    mark: Mark
    folder: str


def parse(text: str) -> Mark | None:
    """The mark written as `text`; None for anything else."""
    fields = text.split(":")
    if len(fields) != len(Mark._fields) or not all(f.isascii() and f.isdecimal() for f in fields[:3]):
        return None
    dev, inode, birth_ns = map(int, fields[:3])
    return Mark(dev, inode, birth_ns, *fields[3:])


def environment(mark: Mark, folder: Path) -> dict[str, str]:
    """What a process of `mark` is given. `folder` is the fleet's, absolute."""
    return {MARK: str(mark), FOLDER: str(folder)}


def carried(environ: Mapping[str, str]) -> tuple[Mark, Path] | None:
    """The mark in `environ` and the folder there; None without one."""
    mark = parse(environ.get(MARK, ""))
    return None if mark is None else (mark, Path(environ.get(FOLDER, "")))


# -- folders


def of_folder(root: Path) -> Mark:
    """The mark of the fleet's folder `root`, as its control plane's; made of the folder itself. Raises OSError."""
    found = root.stat()
    told = told_in(root)
    return Mark(found.st_dev, found.st_ino, _birth_ns(root), told[0].fleet if told else "")


def told_in(root: Path) -> tuple[Mark, str] | None:
    """What `.emp/identity` says: the folder that it was written in, and its path then. It may be a copy.

    None without such a file, or a damaged one. Raises PermissionError.
    """
    try:
        first, _, path = (root / ".emp" / "identity").read_text().partition("\n")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    mark = parse(first)
    return None if mark is None else (mark, path.rstrip("\n"))


def settle(root: Path) -> Mark:
    """Write down that the fleet in `root`/.emp is this folder's; where it was another's, under a new id.

    The path stays as it was while it still leads here. Raises OSError.
    """
    mark, told = of_folder(root), told_in(root)
    if told is not None and told[0].place == mark.place and _leads_to(told[1], mark):
        return mark
    if told is None or told[0].place != mark.place:
        mark = mark._replace(fleet=os.urandom(6).hex())
    path = root / ".emp" / "identity"
    temporary = path.with_name(f".identity.{os.getpid()}")
    temporary.write_text(f"{mark}\n{root}\n")
    temporary.replace(path)
    return mark


def _leads_to(path: str, mark: Mark) -> bool:
    try:
        there = Path(path).stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (mark.dev, mark.inode)


def applied_as(root: Path) -> Path:
    """What the fleet's folder was called when it was applied; `root` where that is not known, or of another folder."""
    told = told_in(root)
    here = root.stat() if told else None
    ours = told and here and (here.st_dev, here.st_ino) == (told[0].dev, told[0].inode)
    return Path(told[1]) if told and ours else root


@cache
def _libc() -> Any:
    import ctypes  # only who asks for a birth waits for it

    return ctypes.CDLL(None, use_errno=True)


def _birth_ns(path: Path) -> int:
    """When the inode of `path` was made; 0 where nobody knows: Python has no statx."""
    import ctypes

    answer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = _libc().statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer)
    except AttributeError:  # a C library without it
        return 0
    (mask,) = struct.unpack_from("=I", answer, 0)
    if failed or not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BTIME_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


# -- processes


def marked() -> list[Marked]:
    """Every living process that carries a mark, ourselves left out, and so are those that we may not look into."""
    found = (of_process(pid) for pid in _pids() if pid != os.getpid())
    return [one for one in found if one is not None]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def of_process(pid: int) -> Marked | None:
    """The mark of the living process `pid`; None without one, and for one that we may not look into."""
    from emp_orch.procident import identify

    environ = environ_of(pid)
    if f"{MARK}=".encode() not in environ or (who := identify(pid)) is None:
        return None
    variables = dict(v.split("=", 1) for v in os.fsdecode(environ).split("\0") if "=" in v)
    mark = parse(variables.get(MARK, ""))
    # Another process may have been given the pid meanwhile.
    return Marked(who, mark, variables.get(FOLDER, "")) if mark is not None and environ_of(pid) == environ else None


def owner_of(pid: int) -> Marked | None:
    """Who began the living process `pid`: itself where it carries a mark, else the nearest above it that does."""
    from emp_orch.procident import ancestors

    return next((one for above in (pid, *ancestors(pid)) if (one := of_process(above)) is not None), None)


def environ_of(pid: int) -> bytes:
    """The environment that `pid` was started with; empty where we may not look."""
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            return file.read(_ENVIRON_BYTES)
    except OSError:  # gone, or not ours to read
        return b""


def with_descendants(found: Iterable[Marked]) -> list[ProcessIdentity]:
    """The processes of `found` and all that descend from them, as it is now.

    So those are found that wiped their environment. What carries the mark of another supervisord is that one's, and so
    is what it began: the reconciler starts machines, and somebody may have started a fleet from within one of our
    programs. Whoever asks is left out, with those above it.
    """
    from emp_orch.procident import ancestors, identify

    roots = list(found)
    asking = {os.getpid(), *ancestors(os.getpid())}
    supervisords = {(one.mark.place, one.mark.machine) for one in roots}
    strangers = {one.who.pid for one in marked() if (one.mark.place, one.mark.machine) not in supervisords} | asking
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    who = {one.who.pid: one.who for one in roots if identify(one.who.pid) == one.who and one.who.pid not in asking}
    below = list(who)
    while below:
        for child in children.get(below.pop(), ()):
            if child in who or child in strangers or (one := identify(child)) is None:
                continue
            who[child] = one
            below.append(child)
    return list(who.values())


def _parent(pid: int) -> int:
    from emp_orch.lifemark import stat_fields

    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0
