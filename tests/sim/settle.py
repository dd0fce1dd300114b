"""What must be true in the end: faults stop, people help, and in bounded time there is exactly what is desired."""

from __future__ import annotations

from emp_orch.fleet.desired.containers import container_hash
from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import MachineStatus, ProgramState
from sim.node import Node
from sim.simulation import Simulation
from support.fleet.world import BROKEN, TICKS_PER_OFFSET, digest_of

# The slowest way: a lost command is taken for lost, then attempts at most a minute apart, for each machine in turn.
MAX_S = 1_500
# Longer than agents take to notice that a clock was set.
QUIET_S = TICKS_PER_OFFSET + 3
_SHOWN_ONLY = (Kind.MACHINE_SURPLUS, Kind.WORKER_SURPLUS, Kind.REPORT_MALFORMED)


def settle(sim: Simulation) -> int:
    """Let it come to rest; the seconds that took."""
    sim.heal()
    sim.lift()
    quiet = 0
    for n in range(MAX_S):
        sim.people_help()
        sim.second()
        quiet = quiet + 1 if _is_whole(sim) else 0
        if quiet >= QUIET_S:
            check_exact(sim)
            check_idle(sim)
            return n
    left = [
        f"{d.kind} {d.machine_id} {d.subject}: {d.observed} ({d.cause})" for d in diff(sim.desired, sim.world.look())
    ]
    memory = sim.redis.memory
    raise AssertionError("\n".join(["did not converge:", *sim.log[-40:], "still:", *left, f"memory: {memory}"]))


def _is_whole(sim: Simulation) -> bool:
    desired = sim.desired
    busy = any(node.operations.under_way for node in sim.nodes) or sim.redis.requests or sim.redis.overrides
    commands = any(host.orders for host in sim.world.hosts.values() if not host.hung)
    sound = not any(h.hung or h.hung_workers or h.strayed for i, h in sim.world.hosts.items() if i in desired.machines)
    if busy or commands or not sound:
        return False
    return all(_stays(d, desired) for d in diff(desired, sim.world.look()))


def _stays(drift: Drift, desired: Desired) -> bool:
    """Without prune, what is no longer named is only shown; what a stranger runs always."""
    subject = machine_of(drift.subject) or drift.subject
    if subject in desired.machines:
        return False
    return drift.kind is Kind.MACHINE_FOREIGN or (not desired.prune and drift.kind in _SHOWN_ONLY)


def check_exact(sim: Simulation) -> None:
    """Exactly the desired machines, programs and workers, in the world itself, not in what it reports."""
    desired, world = sim.desired, sim.world
    ours = set(world.hosts) - world.foreign
    assert set(desired.machines) <= ours
    assert not desired.prune or ours == set(desired.machines)
    assert world.foreign <= set(world.hosts), "what a stranger runs was stopped"
    for m in desired.machines.values():
        host = world.hosts[m.id]
        assert host.status is MachineStatus.READY
        assert sorted(host.programs) == sorted(p.name for p in m.programs)
        for program in host.programs.values():
            expected = ProgramState.EXITED if program.want.kind.once else ProgramState.RUNNING
            assert program.state is expected, program
            assert BROKEN not in program.want.argv
            assert program.want.kind is not ProgramKind.WORKER or program.package == digest_of(desired), program
        assert host.container == container_hash(m)
        workers = [p for p in host.programs.values() if p.want.kind is ProgramKind.WORKER]
        assert len(workers) == m.num_gpus
    reported = {i for i in world.workers if machine_of(i) in desired.machines}
    assert reported == {w for m in desired.machines.values() for w in m.workers}
    assert world.waiting + len(world.jobs) + world.completed == sim.jobs, "a job was lost"


def check_idle(sim: Simulation) -> None:
    """Where nothing changes, a further round does nothing and has nothing to tell."""
    leader = _leader(sim)
    sim.watch.nothing_to_do = True
    for _ in range(6):
        sim.second()
    sim.watch.nothing_to_do = False
    assert leader.reconciler.epoch == sim.redis.epoch


def _leader(sim: Simulation) -> Node:
    return next(n for n in sim.nodes if n.backend.who == sim.redis.holder)
