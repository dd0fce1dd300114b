"""What a machine that joins tells the API; and what that answers, and it keeps: the way to Redis, and what to run."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from emp_orch.seals import CommandKey
from emp_orch.store.fleet.configs import MachineConfig

# The identity of a box: of its folder, made there once.
BOX_BYTES = 16
# Below the API's URL: where a machine without a login at Redis asks what it asks of Redis.
GATE_PATH = "/api/gate"
Box = Annotated[str, Meta(pattern=f"^([0-9a-f]{{{2 * BOX_BYTES}}})?$")]


# What a box of a pool may call itself by: a pod, a job of a scheduler, an instance.
JOIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+=,-]{0,127}"
JoinName = Annotated[str, Meta(pattern=f"^({JOIN_NAME})?$", max_length=128)]
MAX_RETURNED = 10_000


class Asking(Struct, frozen=True, kw_only=True):
    """Which box asks, and the name of its host; an emp that does not say leaves both empty. `name`: what a box that
    joins a pool goes by, or the id that it had; it comes back as the same member by it.
    """

    box: Box = ""
    host: Annotated[str, Meta(max_length=255)] = ""
    name: JoinName = ""


class Leaving(Struct, frozen=True, kw_only=True):
    """A member's last word. `why` it goes, as the box was told; `returned`: how many jobs went back to their places."""

    why: Annotated[str, Meta(max_length=200)] = ""
    returned: Annotated[int, Meta(ge=0, le=MAX_RETURNED)] = 0


class JoinAnswer(Struct, frozen=True, kw_only=True):
    """For one machine only. Its URL may hold a password and `secrets` do: it is kept in a 0600 file and never shown.

    `token` is what the machine asks with from now on: it does not expire, and is void when the machine is revoked.
    `scoped`: the URL's user may do no more than this machine needs. `artifacts_url` empty: the fleet has no store
    that other hosts reach. `packages_path` is where below the API's URL worker
    packages are, for which `token` is good too. `secrets` are values by
    the keys of the references that the machine's programs name. `orders`: the key that it knows its
    orders by; None from an emp that seals none. `gate`: below the API's URL, the way to Redis of a machine that has no
    other: then `redis_url` is empty, and `scoped` holds.
    """

    fleet: str
    machine_id: str
    redis_url: str
    prefix: str
    scoped: bool
    artifacts_url: str
    packages_path: str
    token: str
    config: MachineConfig
    secrets: dict[str, str]
    orders: CommandKey | None = None
    gate: Annotated[str, Meta(pattern=r"^(/[a-z/]{1,99})?$")] = ""
