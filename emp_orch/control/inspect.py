"""A look at one fleet through a store that cannot write: for `emp diff`, `emp status` and `emp doctor`."""

from __future__ import annotations

from msgspec import Struct

from emp_orch import settings as settings_files
from emp_orch.control import generation as generations
from emp_orch.control.observe import Observer
from emp_orch.control.parts import Parts
from emp_orch.errors import EmpError
from emp_orch.fleet.drift import Desired, Drift, diff
from emp_orch.fleet.observed import Observed
from emp_orch.fleet.plan import Operation, plan
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.store import connect
from emp_orch.store.generations import read_generation
from emp_orch.store.keys import Keys
from emp_orch.store.status import FleetStatus, read_status


class DriftNow(Struct, frozen=True, kw_only=True):
    """A drift and for how long the reconciler has known it; None when it has not seen it yet."""

    drift: Drift
    age_ms: int | None


class Difference(Struct, frozen=True, kw_only=True):
    """`status_age_ms` is the age of the reconciler's last tick; None when there was none. `interval_ms` is the time
    between two ticks."""

    fleet: str
    generation: int
    desired: Desired
    observed: Observed
    drift: tuple[DriftNow, ...]
    plan: tuple[Operation, ...]
    leader: str
    paused: str
    status_age_ms: int | None
    interval_ms: int


async def difference(layout: Layout) -> Difference:
    """Compare the generation in force with what is seen now.

    Raises Unreachable when Redis is away, EmpError when nothing was ever applied.
    """
    settings = settings_files.load(layout)
    keys = Keys(settings.prefix)
    async with connect.connected(settings.redis_url, read_only=True) as r:
        # The one kept on disk stands in for one that Redis lost: the reconciler will restore it.
        generation = await read_generation(r, keys, settings.fleet) or generations.kept(layout)
        if generation is None:
            raise EmpError(f"fleet {settings.fleet} has no generation yet", hint="run `emp apply`")
        observed = await Observer(r, keys, runtimes_of(layout, settings), fresh=False, parts=Parts(layout).look).look()
        status = await read_status(r, keys, settings.fleet)
    desired = generations.as_desired(generation, redis=connect.address(settings.machine_redis_url))
    drifts = diff(desired, observed)
    since = {item.drift.key: item.since_ms for item in status.drift} if status else {}
    return Difference(
        fleet=settings.fleet,
        generation=generation.number,
        desired=desired,
        observed=observed,
        drift=tuple(DriftNow(drift=d, age_ms=_age(observed.now_ms, since.get(d.key))) for d in drifts),
        plan=plan(desired, drifts),
        leader=status.leader if status else "",
        paused=status.paused if status else "",
        status_age_ms=_status_age(observed.now_ms, status),
        interval_ms=int(generation.fleet.reconcile.interval_s * 1000),
    )


def _age(now_ms: int, since_ms: int | None) -> int | None:
    return None if since_ms is None else max(0, now_ms - since_ms)


def _status_age(now_ms: int, status: FleetStatus | None) -> int | None:
    return _age(now_ms, status.at_ms if status else None)
