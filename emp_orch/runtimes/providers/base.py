"""What every provider can do: say which boxes its engine has, ask for one, give one back.

One object of the engine a member, so that emp picks which goes. An object carries the fleet, the pool and the member as
labels (or whatever the engine has for that), and a provider sees and touches no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import GpuKind, Limits, MachineId, PoolName, Volume
from emp_orch.fleet.model.pools import Box
from emp_orch.settings import EngineAddress


class ProviderError(EmpError):
    """The engine refused, or did not answer: its own words, one line, without secrets."""


class Launch(Struct, frozen=True, kw_only=True):
    """All that a box is started with. `api` is the URL at which it joins; `token` lets it join as `member_id` and no
    other, and is a secret: it stands in no argument of a process, no label, no log. `stop_s`: how long the box may take
    to end in good order after SIGTERM. `image` empty: the provider's own default, or none where it needs none.
    `environment` are what else the box needs to know, none of it secret.
    """

    fleet: str
    pool: PoolName
    member_id: MachineId
    api: str
    token: str
    image: str
    num_gpus: int
    gpus: GpuKind
    volumes: tuple[Volume, ...]
    limits: Limits
    stop_s: float
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Launch({self.member_id})"

    @property
    def variables(self) -> dict[str, str]:
        """What the box finds in its environment, the secret token apart: EMP_JOIN_TOKEN, or a file with it."""
        own = {"EMP_JOIN_URL": self.api, "EMP_POOL": self.pool, "EMP_JOIN_AS": self.member_id}
        return {**self.environment, **own}


class Provider(Protocol):
    """One pool's way to its engine. Its calls raise ProviderError, and end by themselves within a bounded time."""

    async def boxes(self) -> tuple[Box, ...]:
        """Every object of this fleet and pool that the engine knows of, ended ones too while they are there."""
        ...

    async def create(self, launch: Launch) -> None:
        """Ask for a box. Where there is one for this member already, nothing is done."""
        ...

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        """Give the member's box back: SIGTERM or the like, `stop_s` later by force. Returns when the engine took the
        word, which may be before the box is gone; where there is none, nothing is done.
        """
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Until cancelled: call `changed` when a box may be another than before. An engine that tells nothing is asked
        again from time to time by the caller: then this waits for ever.
        """
        ...

    async def aclose(self) -> None: ...


class Making(Struct, frozen=True, kw_only=True):
    """What a provider is made from. `options` are those of emp.yaml, which have been checked; `folder` is the fleet's
    folder `.emp`; `hosts` are the Docker hosts of emp.yaml, as settings keep them.
    """

    fleet: str
    pool: PoolName
    options: Mapping[str, Any]
    folder: str
    hosts: tuple[EngineAddress, ...] = ()


Make = Callable[[Making], Provider]
