"""What is asked of a program, and what it may answer: docs/pools-command.md describes both, field by field.

An answer is a stranger's: its size, its numbers and its texts are bounded, and a field that nobody knows is refused,
since it is a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.member_ids import id_of_name
from emp_orch.fleet.model.pools import MAX_SIZE, MAX_WORDS, Box, BoxState
from emp_orch.images import MACHINE_IMAGE
from emp_orch.plaintext import one_line
from emp_orch.runtimes.providers.base import Launch, ProviderError

T = TypeVar("T")

VERSION = 1
MAX_LISTING_BYTES = 16 * 2**20
# A program may list the boxes of all its owners.
_MAX_BOXES = 2 * MAX_SIZE
_MAX_NAME = 255
_MAX_TEXT = 16 * 1024
_BEGIN = 80

_Name = Annotated[str, Meta(min_length=1, max_length=_MAX_NAME)]
_Text = Annotated[str, Meta(max_length=_MAX_TEXT)]


class Request(StrEnum):
    LIST = "list"
    CREATE = "create"
    REMOVE = "remove"


class Owner(Struct, frozen=True, kw_only=True):
    """Whose boxes: `tag` is of this fleet, in this folder, and this pool, and of no other."""

    fleet: str
    pool: PoolName
    folder: str

    @property
    def tag(self) -> str:
        # Neither a fleet's name nor a pool's has a dot.
        return f"{self.fleet}.{self.pool}.{self.folder}"


class _Listed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    owner: _Name
    member: _Name
    state: BoxState
    ref: _Text = ""
    words: _Text = ""
    node: _Text = ""


class _List(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    boxes: Annotated[list[_Listed], Meta(max_length=_MAX_BOXES)]


class _Done(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`{}`: a program that does not know the request says something else, or nothing."""


def listing(owner: Owner) -> bytes:
    return _request(Request.LIST, owner)


def creation(owner: Owner, launch: Launch) -> bytes:
    limits = launch.limits
    return _request(
        Request.CREATE,
        owner,
        member=launch.member_id,
        image=launch.image or MACHINE_IMAGE,
        gpus=launch.gpus,
        num_gpus=launch.num_gpus,
        environment={**launch.variables, "EMP_JOIN_TOKEN": launch.token},
        volumes=[{"source": v.source, "target": v.target, "read_only": v.read_only} for v in launch.volumes],
        cpus=limits.cpus,
        memory_bytes=limits.memory_bytes,
        shm_bytes=limits.shm_bytes,
        stop_seconds=launch.stop_s,
    )


def removal(owner: Owner, member_id: MachineId, stop_s: float) -> bytes:
    return _request(Request.REMOVE, owner, member=member_id, stop_seconds=stop_s)


def _request(request: Request, owner: Owner, **more: Any) -> bytes:
    head = {"version": VERSION, "request": request, "owner": owner.tag, "fleet": owner.fleet, "pool": owner.pool}
    return msgspec.json.encode({**head, **more})


def done_in(answer: bytes) -> None:
    """Raises ProviderError for what is not `{}`."""
    _decoded(answer, _Done, "{}")


def boxes_in(answer: bytes, owner: Owner, hide: Callable[[str], str]) -> tuple[Box, ...]:
    """The boxes of `owner`, one a member: of several the one that has not ended. Others' are left out. `hide` takes
    secrets out of a text.

    Raises ProviderError, which says where it is wrong: also for two boxes of one member, and of a member that the pool
    cannot have.
    """
    found: dict[str, _Listed] = {}
    for n, box in enumerate(_decoded(answer, _List, '{"boxes": […]}').boxes):
        if box.owner != owner.tag:
            continue
        if id_of_name(owner.pool, box.member) != box.member:
            raise ProviderError(f"boxes[{n}]: {_shown(box.member)} is no member of pool {owner.pool}")
        before = found.get(box.member)
        if before is None or before.state is BoxState.ENDED:
            found[box.member] = box
        elif box.state is not BoxState.ENDED:
            refs = " and ".join(_shown(b.ref) or "one without ref" for b in (before, box))
            raise ProviderError(f"it lists two boxes of {box.member}: {refs}", hint="give one of them back by hand")
    return tuple(
        Box(
            member_id=MachineId(b.member),
            state=b.state,
            ref=_shown(hide(b.ref)),
            words=_shown(hide(b.words)),
            node=_shown(hide(b.node)),
        )
        for b in found.values()
    )


def _decoded(answer: bytes, shape: type[T], wanted: str) -> T:
    try:
        return msgspec.json.decode(answer, type=shape)
    except msgspec.ValidationError as e:
        raise ProviderError(f"it printed JSON that is no {wanted}: {_shown(str(e))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        if not answer.strip():
            raise ProviderError(f"it printed nothing, and not {wanted}") from None
        begin = _shown(answer[:_BEGIN].decode(errors="replace"))
        raise ProviderError(f"it printed what is no JSON ({_shown(str(e))}): {begin}") from None


def _shown(text: str) -> str:
    return one_line(text.strip())[:MAX_WORDS]
