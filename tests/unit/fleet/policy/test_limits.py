"""The limits of a round: budgets with escalation and quarantine, the breaker, the rollout. States to text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import (
    Instance,
    InstanceState,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    WorkerStatus,
)
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.memory import Attempt, Memory, Rollout, ended
from emp_orch.fleet.policy.pauses import drained
from emp_orch.fleet.round import Inputs, Round, decide
from support.fleet.fleets import NOW_MS, SIMULATION, look, one, report, running, wish

MINUTE_MS = 60_000
FLEET = tuple(one([SIMULATION], machine_id=f"m{n}") for n in range(8))
A = FLEET[0]


def at(observed: Observed, ms: int) -> Observed:
    """The same world `ms` later: everybody was heard just now."""
    machines = {i: structs.replace(m, seen_ms=m.seen_ms + ms) for i, m in observed.machines.items()}
    workers = {i: structs.replace(w, seen_ms=w.seen_ms + ms) for i, w in observed.workers.items()}
    return structs.replace(observed, now_ms=observed.now_ms + ms, machines=machines, workers=workers)


def fatal(m: DesiredMachine, **changes: Any) -> SeenMachine:
    programs = report(m).report.programs
    gave_up = ProgramReport(state=ProgramState.FATAL, since_ms=NOW_MS - 1_000)
    return report(m, programs={**programs, m.programs[-2].name: gave_up}, **changes)


def run(done: Round) -> list[str]:
    return [o.key for o in done.decision.run]


def held(done: Round) -> list[str]:
    return [f"{h.operation.key}: {h.why}" for h in done.decision.held]


def told(done: Round, *types: str) -> list[str]:
    return [t for t, _ in done.entries if t in types]


def over(memory: Memory, keys: Iterable[str]) -> Memory:
    for key in keys:
        memory = ended(memory, key, ok=True)
    return memory


# --- budget


def tries(key: str, count: int) -> dict[str, Attempt]:
    times = tuple(NOW_MS - MINUTE_MS * (count - n) for n in range(count))
    return {key: Attempt(count=count, last_ms=times[-1], times_ms=times)}


def hanging(m: DesiredMachine) -> SeenMachine:
    """Its service runs, and answers nobody."""
    name = m.programs[-2].name
    programs = report(m).report.programs
    return report(m, programs={**programs, name: structs.replace(programs[name], healthy=False)})


AGAIN = f"restart-program/m0/{A.programs[-2].name}"
RESTART = "restart-machine/m0"
START_MACHINE = "start-machine/m0"
BROKEN = look(A, machines={A.id: hanging(A)})


def test_a_program_that_is_tried_in_vain_has_its_machine_restarted() -> None:
    desired = wish(A)
    assert run(decide(Inputs(desired=desired, observed=BROKEN, memory=Memory(attempts=tries(AGAIN, 4))))) == [AGAIN]
    done = decide(Inputs(desired=desired, observed=BROKEN, memory=Memory(attempts=tries(AGAIN, 5))))
    assert run(done) == [RESTART]
    assert "5 tries in 30 min did not help" in done.items[0].action


def test_what_restarts_do_not_mend_is_left_to_a_person_whose_word_sets_it_free() -> None:
    desired = wish(A)
    spent = Memory(attempts={**tries(AGAIN, 5), **tries(RESTART, 3)})
    done = decide(Inputs(desired=desired, observed=BROKEN, memory=spent))
    why = "5 tries and 3 restarts of the machine in 30 min did not help; `emp restart m0` tries again"
    assert held(done) == [f"{AGAIN}: needs a person: {why}"]
    assert told(done, "quarantined") == ["quarantined"]
    # It stays so when the window has passed: only a person, or a generation that changes the machine, sets it free.
    later = decide(Inputs(desired=desired, observed=at(BROKEN, 60 * MINUTE_MS), memory=done.memory))
    assert run(later) == [] and told(later, "quarantined") == []
    asked = Operation(verb=Verb.RESTART_MACHINE, machine_id=A.id, cause="asked by cli", origin="")
    freed = decide(Inputs(desired=desired, observed=at(BROKEN, 61 * MINUTE_MS), memory=later.memory, asked=(asked,)))
    assert run(freed)[0] == RESTART and told(freed, "released") == ["released"]
    assert freed.memory.quarantined == {}


def test_a_generation_that_changes_the_machine_sets_it_free() -> None:
    spent = Memory(attempts={**tries(AGAIN, 5), **tries(RESTART, 3)}, quarantined={AGAIN: "x"})
    old = look(A, machines={A.id: fatal(one([], machine_id="m0"), config_hash="old")})
    done = decide(Inputs(desired=wish(A, generation=2), observed=old, memory=spent))
    assert done.memory.quarantined == {} and run(done) == ["send-configuration/m0"]


def test_containers_that_people_changed_are_made_anew_however_often_that_was() -> None:
    """Each generation asks for it: that is no try in vain."""
    other = look(A, instances={A.id: structs.replace(running(A), container="old")})
    given = Rollout(generation=1, pending=frozenset({A.id}), touched=frozenset({A.id}))
    memory = Memory(attempts=tries(RESTART, 3), rollout=given)
    assert run(decide(Inputs(desired=wish(A), observed=other, memory=memory))) == []
    asked = decide(Inputs(desired=wish(A, generation=2), observed=other, memory=memory))
    assert run(asked) == [RESTART] and asked.memory.quarantined == {}


def test_a_generation_tries_at_once_what_does_not_run() -> None:
    gone = look(A, instances={A.id: Instance(machine_id=A.id, state=InstanceState.GONE)})
    tried = {START_MACHINE: Attempt(count=9, last_ms=NOW_MS - 1_000, error="no image")}
    settled = decide(
        Inputs(desired=wish(A), observed=gone, memory=Memory(attempts=tried, rollout=Rollout(generation=1)))
    )
    assert run(settled) == [] and settled.items[0].hold is Hold.BACKOFF and settled.items[0].failed == "no image"
    asked = decide(Inputs(desired=wish(A, generation=2), observed=gone, memory=settled.memory))
    assert run(asked) == [START_MACHINE]


def test_a_silent_machine_is_restarted_a_few_times() -> None:
    desired, same = wish(A), Rollout(generation=1)
    silent = look(A, machines={A.id: report(A, seen_ms=NOW_MS - 20_000)})
    twice = Memory(attempts=tries(RESTART, 2), rollout=same)
    assert run(decide(Inputs(desired=desired, observed=silent, memory=twice))) == [RESTART]
    thrice = Memory(attempts=tries(RESTART, 3), rollout=same)
    done = decide(Inputs(desired=desired, observed=silent, memory=thrice))
    assert held(done) == [
        f"{RESTART}: needs a person: 3 restarts of the machine in 30 min did not help; `emp restart m0` tries again"
    ]


# --- breaker


def settled_memory(desired: Desired, observed: Observed) -> Memory:
    """What is remembered once everybody was in order."""
    return decide(Inputs(desired=desired, observed=observed, memory=Memory())).memory


def with_dead(*ids: str, ms: int = 1_000) -> Observed:
    return at(look(*FLEET, instances=dead(*ids)), ms)


def dead(*ids: str) -> dict[MachineId, Instance]:
    lives = {m.id: running(m) for m in FLEET}
    gone = {MachineId(i): Instance(machine_id=MachineId(i), state=InstanceState.GONE) for i in ids}
    return {**lives, **gone}


def test_few_failures_are_mended_and_many_together_open_the_breaker() -> None:
    desired, whole = wish(*FLEET), look(*FLEET)
    memory = settled_memory(desired, whole)
    three = decide(Inputs(desired=desired, observed=with_dead("m0", "m1", "m2"), memory=memory))
    assert run(three) == ["start-machine/m0", "start-machine/m1", "start-machine/m2"]
    four = decide(Inputs(desired=desired, observed=with_dead("m0", "m1", "m2", "m3"), memory=memory))
    assert run(four) == [] and told(four, "breaker_opened") == ["breaker_opened"]
    assert held(four)[0] == "start-machine/m0: the breaker is open: 4 of 8 machines failed within 120 s"


def test_failures_far_apart_do_not_open_it() -> None:
    desired = wish(*FLEET)
    memory = settled_memory(desired, look(*FLEET))
    for n, ids in enumerate([("m0", "m1"), ("m0", "m1", "m2"), ("m0", "m1", "m2", "m3")], start=1):
        seen = with_dead(*ids, ms=n * 3 * MINUTE_MS)
        done = decide(Inputs(desired=desired, observed=seen, memory=memory))
        memory = over(done.memory, run(done))
        assert told(done, "breaker_opened") == []


def test_machines_that_were_never_in_order_do_not_open_it() -> None:
    """A fleet that is brought up for the first time has all its machines missing."""
    desired = wish(*FLEET)
    done = decide(Inputs(desired=desired, observed=look(instances={}), memory=Memory()))
    assert len(run(done)) == 8 and told(done, "breaker_opened") == []


def test_while_it_is_open_one_is_tried_then_two_and_it_closes_when_most_are_well() -> None:
    desired = wish(*FLEET)
    memory = settled_memory(desired, look(*FLEET))
    failed = [f"m{n}" for n in range(6)]

    def tick(ms: int, *ids: str) -> Round:
        nonlocal memory
        done = decide(Inputs(desired=desired, observed=with_dead(*ids, ms=ms), memory=memory))
        memory = over(done.memory, run(done))
        return done

    assert run(tick(1_000, *failed)) == []
    assert run(tick(60_000, *failed)) == []
    assert run(tick(61_000, *failed)) == ["start-machine/m0"]
    # It is well: two may be tried; one of them is not well in time: back to one, another.
    assert run(tick(70_000, *failed[1:])) == ["start-machine/m1", "start-machine/m2"]
    assert run(tick(80_000, *failed[2:])) == ["start-machine/m2"]
    assert run(tick(131_000, *failed[2:])) == ["start-machine/m3"]
    closed = tick(140_000, "m2")
    assert told(closed, "breaker_closed") == ["breaker_closed"] and run(closed) == ["start-machine/m2"]


def test_a_person_closes_it() -> None:
    desired = wish(*FLEET)
    seen = with_dead("m0", "m1", "m2", "m3")
    opened = decide(Inputs(desired=desired, observed=seen, memory=settled_memory(desired, look(*FLEET))))
    closed = decide(Inputs(desired=desired, observed=at(seen, 1_000), memory=opened.memory, closes_breaker=True))
    assert len(run(closed)) == 4 and told(closed, "breaker_closed") == ["breaker_closed"]
    again = decide(Inputs(desired=desired, observed=at(seen, 2_000), memory=closed.memory))
    assert told(again, "breaker_opened") == []


# --- rollout

OLD = tuple(one([], machine_id=m.id) for m in FLEET)


def rolling(
    *, new: Iterable[int] = (), machines: dict[int, SeenMachine] | None = None, ms: int = 0, **more: Any
) -> Observed:
    """Machines 0 to 3: those in `new` run generation 2, the others the one before."""
    have = {n: report(FLEET[n], generation=2) if n in set(new) else report(OLD[n]) for n in range(4)}
    seen = {FLEET[n].id: m for n, m in {**have, **(machines or {})}.items()}
    return at(look(*FLEET[:4], machines=seen, **more), ms)


def second(**changes: Any) -> Desired:
    desired = wish(*FLEET[:4], generation=2)
    return structs.replace(desired, limits=structs.replace(desired.limits, **changes))


def test_the_machine_with_the_fewest_busy_workers_comes_first() -> None:
    observed = rolling()
    busy = {
        i: structs.replace(w, report=structs.replace(w.report, status=WorkerStatus.BUSY))
        for i, w in observed.workers.items()
    }
    idle = {i: w for i, w in observed.workers.items() if w.report.machine_id == FLEET[2].id}
    observed = structs.replace(observed, workers={**busy, **idle})
    assert run(decide(Inputs(desired=second(), observed=observed, memory=Memory()))) == ["send-configuration/m2"]


def test_a_changed_machine_must_have_been_in_order_for_a_while_before_the_next() -> None:
    desired = second(min_healthy_ms=5_000)
    first = decide(Inputs(desired=desired, observed=rolling(), memory=Memory()))
    memory = over(first.memory, run(first))
    settling = decide(Inputs(desired=desired, observed=rolling(new=[0], ms=9_000), memory=memory))
    assert run(first) == ["send-configuration/m0"] and run(settling) == []
    (next_ms,) = {h.next_ms for h in settling.decision.held}
    assert next_ms == NOW_MS + 9_000 + 5_000
    after = decide(Inputs(desired=desired, observed=rolling(new=[0], ms=14_000), memory=settling.memory))
    assert run(after) == ["send-configuration/m1"]


def test_a_generation_that_breaks_a_machine_goes_no_further_and_is_called_stalled() -> None:
    desired = second(progress_deadline_ms=600_000)
    first = decide(Inputs(desired=desired, observed=rolling(), memory=Memory()))
    memory = over(first.memory, run(first))
    broken = fatal(FLEET[0], generation=2)
    halted = decide(Inputs(desired=desired, observed=rolling(machines={0: broken}, ms=9_000), memory=memory))
    assert "send-configuration/m1: the rollout of generation 2 is halted: m0 failed with it" in held(halted)
    assert halted.rollback is None
    stalled = decide(
        Inputs(
            desired=desired, observed=rolling(machines={0: broken}, ms=600_000), memory=over(halted.memory, run(halted))
        )
    )
    assert told(stalled, "rollout_stalled") == ["rollout_stalled"] and stalled.memory.rollout.stalled


def test_a_stalled_rollout_goes_back_to_the_last_good_generation_when_that_was_asked_for() -> None:
    before = decide(Inputs(desired=wish(*OLD[:4]), observed=look(*OLD[:4]), memory=Memory()))
    assert before.memory.rollout.good == 1
    desired = second(rollback=True)
    first = decide(Inputs(desired=desired, observed=rolling(), memory=before.memory))
    broken = {0: fatal(FLEET[0], generation=2)}
    stalled = decide(
        Inputs(desired=desired, observed=rolling(machines=broken, ms=600_000), memory=over(first.memory, run(first)))
    )
    assert stalled.rollback == 1
    unasked = structs.replace(desired, limits=structs.replace(desired.limits, rollback=False))
    assert (
        decide(Inputs(desired=unasked, observed=rolling(machines=broken, ms=600_000), memory=first.memory)).rollback
        is None
    )


def moved(*numbers: int) -> dict[MachineId, Instance]:
    """Machines 0 to 3 as containers would be: those given were made for the generation before."""
    lives = {m.id: running(m) for m in FLEET[:4]}
    return {**lives, **{FLEET[n].id: structs.replace(running(FLEET[n]), container="old") for n in numbers}}


def looping(n: int, ms: int) -> dict[MachineId, Instance]:
    """Machine `n` was made anew, and its container ends at once, again and again; the others are as they were."""
    lives = {**moved(*(i for i in range(4) if i != n)), FLEET[n].id: running(FLEET[n], NOW_MS + ms - 2_000)}
    return {i: structs.replace(found, boot_id="") if i == FLEET[n].id else found for i, found in lives.items()}


def test_an_image_whose_containers_end_at_once_goes_no_further_and_is_taken_back() -> None:
    before = decide(Inputs(desired=wish(*FLEET[:4]), observed=look(*FLEET[:4], instances=moved()), memory=Memory()))
    desired = second(rollback=True, progress_deadline_ms=60_000)
    first = decide(Inputs(desired=desired, observed=rolling(instances=moved(0, 1, 2, 3)), memory=before.memory))
    assert [k for k in run(first) if k.startswith("restart")] == ["restart-machine/m0"]
    memory = over(first.memory, run(first))
    unheard = report(FLEET[0], seen_ms=NOW_MS - 60_000)
    for ms in (20_000, 40_000):
        seen = rolling(new=[1, 2, 3], machines={0: unheard}, instances=looping(0, ms), ms=ms)
        done = decide(Inputs(desired=desired, observed=seen, memory=memory))
        assert run(done) == [] and done.rollback is None
        assert "restart-machine/m1: max_unavailable: 1 of 1 are out already (m0)" in held(done)
        memory = done.memory
    seen = rolling(new=[1, 2, 3], machines={0: unheard}, instances=looping(0, 70_000), ms=70_000)
    stalled = decide(Inputs(desired=desired, observed=seen, memory=memory))
    assert stalled.rollback == 1 and told(stalled, "rollout_stalled") == ["rollout_stalled"]


def test_a_machine_that_a_generation_broke_is_out_also_when_it_is_left_to_a_person() -> None:
    desired = structs.replace(second(), max_unavailable=2)
    given = Rollout(generation=2, pending=frozenset(m.id for m in FLEET[:4]), touched=frozenset({A.id}))
    name = f"start-program/m0/{A.programs[-2].name}"
    memory = Memory(rollout=given, quarantined={name: "x"})
    broken = rolling(machines={0: fatal(FLEET[0], generation=2)})
    done = decide(Inputs(desired=desired, observed=broken, memory=memory))
    assert run(done) == ["send-configuration/m1"]
    assert "send-configuration/m2: max_unavailable: 2 of 2 are out already (m0, m1)" in held(done)


def test_what_had_failed_before_a_generation_came_does_not_halt_it() -> None:
    others = {m.id: report(m) for m in OLD[1:4]}
    failed = look(FLEET[0], *OLD[1:4], machines={A.id: hanging(FLEET[0]), **others})
    before = decide(Inputs(desired=wish(FLEET[0], *OLD[1:4]), observed=failed, memory=Memory()))
    memory = over(before.memory, run(before))
    first = decide(Inputs(desired=second(), observed=rolling(machines={0: hanging(FLEET[0])}, ms=9_000), memory=memory))
    assert first.memory.rollout.ill == {A.id}
    assert "send-configuration/m1" in run(first)


def test_a_machine_that_fails_while_it_settles_was_broken_by_the_generation() -> None:
    desired = second(min_healthy_ms=5_000)
    settling = Rollout(generation=2, pending=frozenset({FLEET[1].id}), settling={A.id: NOW_MS - 1_000}, done=1, good=1)
    seen = rolling(new=[2, 3], machines={0: fatal(FLEET[0], generation=2)})
    done = decide(Inputs(desired=desired, observed=seen, memory=Memory(rollout=settling)))
    assert "send-configuration/m1: the rollout of generation 2 is halted: m0 failed with it" in held(done)
    assert done.memory.rollout.good == 1 and A.id in done.memory.rollout.touched


def test_workers_of_another_package_are_restarted_machine_by_machine() -> None:
    package = WorkerPackage(digest="2" * 64)
    desired = structs.replace(second(), package=package)
    there = {n: report(FLEET[n], generation=2, package=package.digest) for n in range(4)}
    seen = rolling(machines=there)
    old = {i: structs.replace(w, report=structs.replace(w.report, package="1" * 64)) for i, w in seen.workers.items()}
    done = decide(Inputs(desired=desired, observed=structs.replace(seen, workers=old), memory=Memory()))
    assert run(done) == ["restart-program/m0/redis-worker-gpu0"]
    (attempt,) = done.memory.attempts.values()
    assert attempt.times_ms == ()


def test_nothing_is_taken_back_that_nobody_was_given() -> None:
    """A pause stands, or a host is away: the generation has nothing to do with it."""
    rollout = Rollout(generation=2, pending=frozenset({A.id}), progress_ms=NOW_MS - 700_000, good=1)
    pause = Override(kind=OverrideKind.PAUSE, reason="night", by="kim")
    desired, memory = second(rollback=True), Memory(rollout=rollout)
    done = decide(Inputs(desired=desired, observed=rolling(), memory=memory, overrides=(pause,)))
    assert done.memory.rollout.stalled and done.rollback is None


def test_a_generation_frees_what_nobody_hears() -> None:
    quarantined = Memory(attempts=tries(RESTART, 3), quarantined={RESTART: "x"}, rollout=Rollout(generation=1))
    silent = look(A, machines={A.id: report(A, seen_ms=NOW_MS - 20_000)})
    assert run(decide(Inputs(desired=wish(A), observed=silent, memory=quarantined))) == []
    assert run(decide(Inputs(desired=wish(A, generation=2), observed=silent, memory=quarantined))) == [RESTART]


# --- drains


def test_a_drained_machine_is_desired_without_its_workers() -> None:
    drain = Override(kind=OverrideKind.DRAIN, machine_id=A.id, reason="disk", by="kim")
    desired = drained(wish(*FLEET[:2]), (drain,))
    assert desired.machines[A.id].workers == {} and FLEET[1] == desired.machines[FLEET[1].id]
    done = decide(Inputs(desired=desired, observed=look(*FLEET[:2]), memory=Memory(), overrides=(drain,)))
    assert run(done) == ["send-configuration/m0"]
