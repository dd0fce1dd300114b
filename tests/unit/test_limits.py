"""The limits of a round: budgets with escalation and quarantine, the breaker, the rollout. States to text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fleet_support import NOW_MS, SIMULATION, look, one, report, running, wish
from msgspec import structs

from emp_orch.fleet.desired import DesiredMachine
from emp_orch.fleet.kinds import Desired
from emp_orch.fleet.memory import Attempt, Memory, Rollout, ended
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import (
    Instance,
    InstanceState,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    WorkerStatus,
)
from emp_orch.fleet.overrides import Override, OverrideKind, drained
from emp_orch.fleet.plan import Operation, Verb
from emp_orch.fleet.policy import Hold
from emp_orch.fleet.round import Inputs, Round, decide

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
    memory = Memory(attempts=tries(RESTART, 3), rollout=Rollout(generation=1))
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
    desired = wish(A)
    silent = look(A, machines={A.id: report(A, seen_ms=NOW_MS - 20_000)})
    assert run(decide(Inputs(desired=desired, observed=silent, memory=Memory(attempts=tries(RESTART, 2))))) == [RESTART]
    done = decide(Inputs(desired=desired, observed=silent, memory=Memory(attempts=tries(RESTART, 3))))
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
    return at(look(*FLEET[:4], machines=seen), ms)


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


# --- drains


def test_a_drained_machine_is_desired_without_its_workers() -> None:
    drain = Override(kind=OverrideKind.DRAIN, machine_id=A.id, reason="disk", by="kim")
    desired = drained(wish(*FLEET[:2]), (drain,))
    assert desired.machines[A.id].workers == {} and FLEET[1] == desired.machines[FLEET[1].id]
    done = decide(Inputs(desired=desired, observed=look(*FLEET[:2]), memory=Memory(), overrides=(drain,)))
    assert run(done) == ["send-configuration/m0"]
