"""Which machines write into the fleet's artifact store themselves, and which through the API."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import Fleet, Machine
from emp_orch.fleet.model.hosts import elsewhere

# What a worker is told in place of a store's URL.
THROUGH_API = "api://"
_LOCAL = ("file", "local")


def through_api(fleet: Fleet, machine: Machine) -> bool:
    """Whether the store is a folder of the control host that `machine` does not see; always for a member of a pool,
    whose box is a stranger's: it holds no key of any store.

    A folder of its own by the same path is the same one where the machine's `volumes` say so: one of the network.
    """
    if machine.pool:
        return True
    scheme, _, folder = fleet.jobs.artifacts.partition("://")
    if machine.traits.shares_host or (fleet.jobs.artifacts and scheme not in _LOCAL):
        return False
    if not fleet.jobs.artifacts:
        return machine.traits.joins or elsewhere(fleet, machine)
    return not any(v.source == v.target and _within(folder, v.target) for v in machine.volumes if not v.read_only)


def _within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
