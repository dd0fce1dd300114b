"""What members are called: by what their box calls itself, by the folder it has, or by chance. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from emp_orch.fleet.model.fleet import MachineId, PoolName

# Without those that are taken for one another.
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
OF_NAME = 8
SHORTEST = 4
LONGEST = 16
MAX_MEMBER_ID = 63
_REST = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)


def id_of_name(pool: PoolName, name: str) -> MachineId:
    """Of the box that calls itself `name`: always the same. A name that is an id of the pool is that id."""
    head = f"{pool}-"
    if name.startswith(head) and len(name) <= MAX_MEMBER_ID and _REST.fullmatch(name[len(head) :]):
        return MachineId(name)
    return MachineId(f"{head}{_digest(pool, 'name', name)[:OF_NAME]}")


def ids_of_box(pool: PoolName, box: str) -> Iterator[MachineId]:
    """Of a box without a name, by the identity of its folder: a short one first, the next where another has that."""
    digest = _digest(pool, "box", box)
    for length in range(SHORTEST, LONGEST + 1):
        yield MachineId(f"{pool}-{digest[:length]}")


def id_of_chance(pool: PoolName, chance: bytes) -> MachineId:
    """Of a member that is asked for: one letter for each byte, which are random."""
    return MachineId(f"{pool}-{_letters(chance)}")


def _digest(pool: str, kind: str, text: str) -> str:
    raw = hashlib.sha256(f"{pool}\n{kind}\n{text}".encode()).digest()
    return _letters(raw)


def _letters(raw: bytes) -> str:
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in raw)
