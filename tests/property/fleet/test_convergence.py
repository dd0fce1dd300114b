"""From any mix of machines, programs, workers and reports, the decisions end in exactly the desired set.

The world is simulated (support/fleet/world.py), the decisions are the real ones: diff, plan, gate. Held here are
DESIGN.md §9: 1 (same inputs, same plan; converged, empty), 2 (convergence, exact counts), 3 (unknown stops nothing),
4 (max_unavailable).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.drift.table import Desired, Drift, Kind, diff
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import (
    InstanceState,
    MachineStatus,
    Observed,
    ProgramState,
)
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.memory import Memory, ended
from emp_orch.fleet.round import Inputs, decide
from support.fleet.cases import FAULTS, START_MS, STEADY, Case, cases, heal, strike
from support.fleet.world import World

# The slowest way: a lost command is taken for lost (150 s), then attempts at most a minute apart, for each machine.
MAX_TICKS = 800
FAULT_TICKS = 40
BREAKING = (Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE, Verb.RESTART_PROGRAM)


# --- any world


# --- faults that come and go


# --- the loop


@dataclass
class Loop:
    """What control/reconciler/rounds does in a tick, and the watch over what it must never do."""

    desired: Desired
    world: World
    memory: Memory = field(default_factory=Memory)
    lost: bool = False
    disrupted: set[MachineId] = field(default_factory=set)
    minutes: list[str] = field(default_factory=list)

    def tick(self) -> tuple[tuple[Drift, ...], tuple[Operation, ...]] | None:
        for key in self.world.advance():
            self.memory = ended(self.memory, key, ok=True)
        self.watch_disruption()
        if self.world.redis_away:
            self.lost = True
            return None
        if self.lost:
            self.world.observing_since_ms, self.lost = self.world.now_ms, False
        observed = self.world.look()
        inputs = Inputs(
            desired=self.desired,
            observed=observed,
            memory=self.memory,
            running=frozenset(self.world.running),
            asked=tuple(self.by_a_person()),
            jitter=0.5,
        )
        done = decide(inputs)
        assert done == decide(inputs)
        for operation in done.decision.run:
            self.check(operation, observed)
            self.minutes.append(f"{(self.world.now_ms - START_MS) // 1000} s: {operation.text}")
            self.note_disruption(operation)
            self.world.begin(operation, self.desired)
        self.memory = done.memory
        return tuple(i.drift for i in done.items), done.operations

    def by_a_person(self) -> Iterator[Operation]:
        """What is left to a person is taken up by one, who says `emp restart` for each."""
        for key in self.memory.quarantined:
            _, machine_id, *program = key.split("/", 2)
            yield Operation(
                verb=Verb.RESTART_PROGRAM if program else Verb.RESTART_MACHINE,
                machine_id=MachineId(machine_id),
                program=ProgramName(program[0]) if program else None,
                cause="asked",
                origin="",
            )

    def check(self, operation: Operation, observed: Observed) -> None:
        """Unknown never stops or restarts."""
        if operation.verb not in BREAKING:
            return
        instance = observed.instances.get(operation.machine_id)
        # A report that cannot be read says nothing; only long silence does.
        recent_ms = self.world.now_ms - self.desired.stale_after_ms
        unreadable = {m.id for m in observed.malformed if m.seen_ms >= recent_ms}
        assert instance is None or instance.state is not InstanceState.UNKNOWN or operation.verb is Verb.RESTART_PROGRAM
        if operation.machine_id in self.desired.machines:
            assert operation.machine_id not in unreadable, operation.text
        if operation.verb is Verb.RESTART_PROGRAM and operation.cause.split()[0] in unreadable:
            raise AssertionError(operation.text)

    def note_disruption(self, operation: Operation) -> None:
        host = self.world.hosts.get(operation.machine_id)
        if host is None or operation.machine_id not in self.desired.machines or host.status is not MachineStatus.READY:
            return
        changes = operation.verb is Verb.SEND_CONFIG and host.machine != self.desired.machines[operation.machine_id]
        if operation.verb is Verb.RESTART_MACHINE or changes:
            self.disrupted.add(operation.machine_id)
            assert len(self.disrupted) <= self.desired.max_unavailable, self.disrupted

    def watch_disruption(self) -> None:
        """A machine is back when it is ready again; one that fails does not hold up the others."""
        for machine_id in list(self.disrupted):
            host = self.world.hosts.get(machine_id)
            at_work = any(key.endswith(f"/{machine_id}") for key in self.world.running)
            ordered = host is not None and any(c.verb is Verb.SEND_CONFIG for c in host.orders)
            failed = host is None or bool(host.error)
            if not at_work and not ordered and (failed or (host is not None and host.status is MachineStatus.READY)):
                self.disrupted.discard(machine_id)


def stays(loop: Loop, drift: Drift) -> bool:
    """Whether `drift` is to stay: without prune, what is no longer named is only shown."""
    subject = machine_of(drift.subject) or drift.subject
    shown_only = (Kind.MACHINE_SURPLUS, Kind.WORKER_SURPLUS, Kind.REPORT_MALFORMED)
    return not loop.desired.prune and drift.kind in shown_only and subject not in loop.desired.machines


def run_until_settled(loop: Loop) -> int:
    """Ticks until nothing differs, and stays so for three ticks. Fails after MAX_TICKS."""
    quiet = 0
    for n in range(MAX_TICKS):
        seen = loop.tick()
        still = seen is not None and not seen[1] and not loop.world.running and all(stays(loop, d) for d in seen[0])
        quiet = quiet + 1 if still else 0
        if quiet == 3:
            return n
    observed = loop.world.look()
    left = [f"{d.kind} {d.machine_id} {d.subject}: {d.observed} ({d.cause})" for d in diff(loop.desired, observed)]
    raise AssertionError("did not converge:\n" + "\n".join([*loop.minutes[-30:], "still:", *left]))


def check_exact(desired: Desired, world: World) -> None:
    """Exactly the desired machines, programs and workers, in the world itself, not in what it reports."""
    surplus = set() if desired.prune else set(world.hosts) - set(desired.machines)
    assert set(world.hosts) == set(desired.machines) | surplus
    for m in desired.machines.values():
        host = world.hosts[m.id]
        assert host.status is MachineStatus.READY
        assert sorted(host.programs) == sorted(p.name for p in m.programs)
        for program in host.programs.values():
            expected = ProgramState.EXITED if program.want.kind.once else ProgramState.RUNNING
            assert program.state is expected, program
        workers = [p for p in host.programs.values() if p.want.kind is ProgramKind.WORKER]
        comfyui = [p for p in host.programs.values() if p.want.service == "comfyui" and not p.want.kind.once]
        assert len(workers) == m.num_gpus
        assert len(comfyui) == (m.num_gpus if "comfyui" in m.services else 0)
    ours = {i: r for i, (r, _) in world.workers.items() if machine_of(i) in desired.machines}
    assert set(ours) == {w for m in desired.machines.values() for w in m.workers}
    assert all(r is not None and r.machine_id == machine_of(i) for i, r in ours.items())


@STEADY
@given(cases())
def test_any_mix_ends_in_exactly_the_desired_set(case: Case) -> None:
    loop = Loop(case.desired, case.world)
    run_until_settled(loop)
    check_exact(case.desired, case.world)


@STEADY
@given(
    cases(), st.lists(st.tuples(st.integers(0, FAULT_TICKS), st.sampled_from(FAULTS), st.integers(0, 2)), max_size=5)
)
def test_faults_that_stop_are_healed(case: Case, faults: list[tuple[int, str, int]]) -> None:
    loop = Loop(case.desired, case.world)
    for now in range(FAULT_TICKS):
        for at, fault, n in faults:
            if at == now:
                strike(case.world, fault, MachineId(f"m{n}"))
        loop.tick()
    heal(case.world)
    run_until_settled(loop)
    check_exact(case.desired, case.world)
