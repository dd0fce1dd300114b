"""What must be true in the end: faults stop, and in bounded time every job has ended, each pool has the size that it is
to have, and nothing more is done.
"""

from __future__ import annotations

from emp_orch.fleet.model.fleet import MemberState
from sim.pools.boxes import Box
from sim.pools.fleets import GUESTS
from sim.pools.simulation import PoolSimulation

MAX_S = 900
QUIET_S = 12
# After that nothing may be begun.
IDLE_S = 20


async def settle(sim: PoolSimulation) -> int:
    """Let it come to rest; the seconds that took."""
    sim.heal()
    quiet = 0
    for n in range(MAX_S):
        await sim.second()
        quiet = quiet + 1 if not _left(sim) else 0
        if quiet >= QUIET_S:
            sim.watch.nothing_to_do = True
            await sim.seconds(IDLE_S)
            assert all(job.ended == 1 for job in sim.world.queue), "a job did not end once"
            return n
    return sim.watch.fail("settles", "; ".join(_left(sim)))


def _left(sim: PoolSimulation) -> list[str]:
    """What is not yet as it is to be."""
    found = [f"{len(sim.world.open_jobs)} jobs"] if sim.world.open_jobs else []
    members = sim.members().values()
    for name, pool in sim.pools.items():
        mine = [m for m in members if m.pool == name]
        if name == GUESTS:
            here = {b.member.id for b in sim.boxes if b.pool == GUESTS and b.host is not None and b.member is not None}
            if {m.id for m in mine} != here or any(m.state is not MemberState.IN for m in mine):
                found.append(f"guests {[m.id for m in mine]}, of boxes {sorted(here)}")
            continue
        things = sim.engines[name].things
        there = {i for i, t in things.items() if isinstance(t.life, Box) and t.life.host is not None}
        found += [f"the box of {i} is {t.state}" for i, t in things.items() if i not in there]
        if len(mine) != pool.min_size or {m.id for m in mine} != there:
            found.append(f"{name}: members {[m.id for m in mine]}, boxes {sorted(there)}, least {pool.min_size}")
        found += [f"{m.id} is {m.state}" for m in mine if m.state is not MemberState.IN or m.leaving_ms]
    last = sim.watch.last
    found += [f"{i.drift.kind} {i.drift.machine_id}: {i.drift.cause}" for i in last.items] if last else ["no round"]
    return found
