"""The drift that is kept by machine is `diff`, whatever happens between two looks (fleet/drift/incremental.py)."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from emp_orch.fleet.drift.incremental import IncrementalDiff
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import machine_of, worker_id
from emp_orch.fleet.model.observed import Changed, Observed
from emp_orch.fleet.policy.memory import Memory, ended
from emp_orch.fleet.round import Inputs, decide
from support.fleet.cases import FAULTS, STEADY, Case, cases, desired_of, ghost, heal, strike
from support.fleet.world import World, fresh_host

TICKS = 60
# Beside those of test_convergence: what concerns a worker alone, or somebody nobody expects.
OWN = ("worker hangs", "worker strays", "stranger", "worker of nobody")

FAULT = st.tuples(st.integers(0, TICKS // 2), st.sampled_from(FAULTS + OWN), st.integers(0, 2))


@dataclass
class Watcher:
    """What control/reconciler/observe does: of whom nothing changed, or who is not attended to, all is as known."""

    world: World
    desired: Desired
    book: IncrementalDiff = field(default_factory=IncrementalDiff)
    last: Observed | None = None

    def look(self, memory: Memory) -> Observed:
        now = self.world.look()
        before, self.last = self.last, now
        if before is None:
            return now
        stale_ms = now.now_ms - self.desired.stale_after_ms
        machines = {i for i in now.machines.keys() | before.machines.keys() if _other(now.machines, before.machines, i)}
        machines |= {i for i, m in now.machines.items() if m.seen_ms < stale_ms}
        lives = now.instances.keys() | before.instances.keys()
        machines |= {i for i in lives if now.instances.get(i) != before.instances.get(i)}
        workers = {i for i in now.workers.keys() | before.workers.keys() if _other(now.workers, before.workers, i)}
        workers |= {i for i, w in now.workers.items() if w.seen_ms < stale_ms}
        unread = {*now.malformed, *before.malformed}
        machines |= {MachineId(m.id) for m in unread if m.kind == "machine"}
        workers |= {WorkerId(m.id) for m in unread if m.kind == "worker"}
        attention = self.book.attention
        tried = {MachineId(key.split("/", 2)[1]) for key in memory.attempts}
        about = {*machines, *map(machine_of, workers), *attention.machines, *tried}
        known = {i: m if i in about else structs.replace(m, seen_ms=0) for i, m in now.machines.items()}
        told = {
            i: w if machine_of(i) in about or i in attention.workers or i in workers else structs.replace(w, seen_ms=0)
            for i, w in now.workers.items()
        }
        changed = Changed(machines=frozenset(machines), workers=frozenset(workers))
        return structs.replace(now, machines=known, workers=told, changed=changed)


def _other(now: dict, before: dict, subject: str) -> bool:  # type: ignore[type-arg]
    a, b = now.get(subject), before.get(subject)
    return (a.report if a else None) != (b.report if b else None)


@settings(STEADY, max_examples=100)
@given(
    cases(),
    st.lists(st.tuples(st.integers(0, TICKS // 2), st.sampled_from(FAULTS + OWN), st.integers(0, 2)), max_size=6),
)
def test_it_says_what_diff_says(case: Case, faults: list[tuple[int, str, int]]) -> None:
    world, desired, memory = case.world, case.desired, Memory()
    watcher = Watcher(world, desired)
    for now in range(TICKS):
        for at, fault, n in faults:
            if at == now:
                strike_any(world, fault, n)
        if now == TICKS // 2:
            heal(world)
        for key in world.advance():
            memory = ended(memory, key, ok=True)
        if world.redis_away:
            watcher = Watcher(world, desired)
            continue
        observed = watcher.look(memory)
        whole = diff(desired, world.look())
        kept = watcher.book.diff(desired, observed)
        assert kept == whole
        done = decide(_inputs(desired, observed, memory, world), kept)
        assert done == decide(_inputs(desired, structs.replace(world.look(), changed=observed.changed), memory, world))
        for operation in done.decision.run:
            world.begin(operation, desired)
        memory = done.memory


def strike_any(world: World, fault: str, n: int) -> None:
    machine_id = MachineId(f"m{n}")
    host = world.hosts.get(machine_id)
    workers = sorted(host.machine.workers) if host else []
    match fault:
        case "worker hangs" if host is not None and workers:
            host.hung_workers.add(workers[0])
        case "worker strays" if host is not None and workers:
            host.strayed.add(workers[0])
        case "stranger":
            stranger = desired_of(f"x{n}", 1, ())
            world.hosts[stranger.id] = fresh_host(stranger, 1, world.now_ms)
        case "worker of nobody":
            wid = worker_id(machine_id, 7)
            world.workers[wid] = (ghost(wid, machine_id, 7), world.now_ms)
        case _:
            strike(world, fault, machine_id)


def _inputs(desired: Desired, observed: Observed, memory: Memory, world: World) -> Inputs:
    running = frozenset(world.running)
    return Inputs(desired=desired, observed=observed, memory=memory, running=running, jitter=0.5)
