"""What the API answers a machine that joins, and the machine keeps: the way to Redis, and what it is to run."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.store.configs import MachineConfig


class JoinAnswer(Struct, frozen=True, kw_only=True):
    """For one machine only. Its URL may hold a password and `secrets` do: it is kept in a 0600 file and never shown.

    `token` is what the machine asks with from now on: it does not expire, and is void when the machine is revoked.
    `scoped`: the URL's user may do no more than this machine needs. `artifacts_url` empty: the fleet has no store
    that other hosts reach. `packages_path` is where below the API's URL worker
    packages are, for which `token` is good too. `secrets` are values by
    the keys of the references that the machine's programs name.
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
