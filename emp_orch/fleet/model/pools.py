"""What is seen of pools: the boxes that an engine was asked for, and the jobs that wait for them. docs/adr/0045."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, PoolName

# The provider of pools whose boxes somebody else starts.
JOIN = "join"
# Of the name of a pool: a member's id, and its workers' ids, begin with it.
MAX_POOL_NAME = 40
MAX_WORDS = 500
MAX_SIZE = 10_000


class BoxState(StrEnum):
    """What an engine says of a box that it was asked for. `pending`: it waits for a place. `ended`: it will not run
    again by itself. `unknown`: the engine cannot tell.
    """

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


class Box(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object of an engine, for one member. `ref` is the engine's own name for it, `words` why it is as it is, in
    the engine's own words, one line, `node` where it runs, as far as that is known.
    """

    member_id: MachineId
    state: BoxState
    ref: str = ""
    words: str = ""
    node: str = ""


class Backlog(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs that the members of a pool can run: `waiting` for a worker, `running` on its members now."""

    waiting: int = 0
    running: int = 0


class Waiting(Struct, frozen=True, kw_only=True):
    """Jobs that wait in lanes that exactly these pools can serve, by name in order."""

    pools: tuple[PoolName, ...]
    jobs: int


class SeenPool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pool as it was seen. `boxes` None: its engine was not asked, or did not answer: `error` says what it said.
    `backlog` None: nobody could read the queue. `former`: members whose boxes only an engine has that the pool had
    before: they go.
    """

    boxes: tuple[Box, ...] | None = None
    error: str = ""
    backlog: Backlog | None = None
    former: tuple[MachineId, ...] = ()
