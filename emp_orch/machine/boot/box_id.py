"""Which box this is: a random identity of the machine's folder, which a copy of that folder does not take along."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.settings import write_private
from emp_orch.store.acl.joining import BOX_BYTES, Box

log = logging.getLogger("machine")


class _Identity(Struct, frozen=True, kw_only=True):
    """`place`: where the folder was when it got its identity."""

    box: Box
    place: str


def box_of(folder: Path) -> str:
    """The identity of the machine's `folder`, made once; a folder that is a copy gets another. Raises EmpError."""
    path = folder / "box.json"
    try:
        place = _place(folder)
        known = _read(path)
        if known is None or not known.box:
            return _write(path, secrets.token_hex(BOX_BYTES), place)
        if known.place == place:
            return known.box
        if not known.place:  # of an older emp
            return _write(path, known.box, place)
        log.warning("%s is a copy of another box's folder: this box takes an identity of its own", folder)
        return _write(path, secrets.token_hex(BOX_BYTES), place)
    except OSError as e:
        raise unwritable(folder, e) from e


def unwritable(folder: Path, e: OSError) -> EmpError:
    return EmpError(f"cannot write in {folder}: {e.strerror}", hint="check its owner, and the space")


def _place(folder: Path) -> str:
    """The folder itself, wherever it is mounted or moved within its file system: no copy has the same."""
    return f"{os.statvfs(folder).f_fsid:x}-{folder.stat().st_ino:x}"


def _read(path: Path) -> _Identity | None:
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Box | _Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        log.warning("%s cannot be read; this box takes another identity", path)
        return None
    return known if isinstance(known, _Identity) else _Identity(box=known, place="")


def _write(path: Path, box: str, place: str) -> str:
    write_private(path, msgspec.json.encode(_Identity(box=box, place=place)))
    return box
