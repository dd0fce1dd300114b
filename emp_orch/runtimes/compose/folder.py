"""What is kept of the machines on one Docker host: `.emp/hosts/NAME`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch import marks
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.containers import container_hash, image_moved
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.layout import Layout
from emp_orch.procident import locked
from emp_orch.render.compose import Placed
from emp_orch.runtimes.limits import UNKNOWN_DRAIN_S

# Who a container runs as when root applies: the image's own user.
IMAGE_USER = 10001


def folder_digest(layout: Layout) -> str:
    """Tells this fleet's folder from another that may hold a fleet of the same name, also after a move."""
    return hashlib.sha256(str(marks.applied_as(layout.root)).encode()).hexdigest()[:8]


def container_user() -> str:
    """`UID:GID` of who applies, so that what is shared between host and container has one owner; never root."""
    uid, gid = os.getuid(), os.getgid()
    return f"{IMAGE_USER}:{IMAGE_USER}" if uid == 0 else f"{uid}:{gid}"


class Known(Struct, frozen=True, kw_only=True):
    """What was placed on a host, kept in `.emp/hosts/HOST/machines/ID.json` so that the file can be written again."""

    placed: Placed  # as its container was made
    drain_timeout_s: float = UNKNOWN_DRAIN_S  # as last asked for


class HostFolder:
    """`.emp/hosts/NAME`: the compose file, what it was made from, the files with secrets."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.root = layout.hosts / name

    @property
    def compose(self) -> Path:
        return self.root / "compose.yaml"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    def secrets(self, machine_id: MachineId) -> Path:
        return self.root / "secrets" / machine_id

    def known(self) -> dict[MachineId, Known]:
        """All that was placed here, by id. A file that does not fit counts as none: the next start writes it anew."""
        found = {}
        for path in sorted(self.machines.glob("*.json")):
            try:
                one = msgspec.json.decode(path.read_bytes(), type=Known)
            except (OSError, msgspec.DecodeError, msgspec.ValidationError):
                continue
            found[one.placed.machine.id] = one
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One at a time; what the disk refuses is an EmpError that names the file."""
        try:
            self.machines.mkdir(parents=True, exist_ok=True)
            with locked(self.root / ".lock"):
                yield
        except OSError as e:
            raise EmpError(
                f"cannot write {e.filename or self.root}: {e.strerror}", hint="check its owner, and the free space"
            ) from e


def same_container(one: Placed, other: Placed) -> bool:
    """Whether a container that was made as `one` serves for `other`: what its machine runs comes through Redis.

    Its labels and environment say what it was made for; with newer ones `docker compose` would make it anew.
    """
    alike = msgspec.structs.replace(one, machine=other.machine, generation=other.generation, digest=other.digest)
    moved = image_moved(one.machine.container, other.machine.container)
    return alike == other and not moved and container_hash(one.machine) == container_hash(other.machine)


def write_in_place(path: Path, content: bytes) -> None:
    """A file that is mounted must stay the same file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.truncate(0)
        file.write(content)
    give(path)


def give(path: Path) -> None:
    """To the user that containers run as, where that is another than ours."""
    if os.getuid() == 0:
        os.chown(path, IMAGE_USER, IMAGE_USER)
