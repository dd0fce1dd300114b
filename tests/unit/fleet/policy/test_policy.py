"""Which operations run now: backoff, operations under way, max_unavailable, paused."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import BOOT_GRACE_MS, Desired, Kind, diff
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.observed import Instance, InstanceState, MachineStatus, Observed
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.plan.operations import Operation, Verb, plan, remedy
from emp_orch.fleet.policy import memory as memories
from emp_orch.fleet.policy.gate import gate
from emp_orch.fleet.policy.holds import Decision, describe
from emp_orch.fleet.policy.memory import Attempt, Memory
from emp_orch.fleet.policy.policies import backoff_ms
from emp_orch.fleet.policy.situation import IN_FLIGHT_MS, Situation
from support.fleet.fleets import NOW_MS, OLD_MS, SIMULATION, look, one, report, running, wish

A, B, C = (one([SIMULATION], machine_id=name) for name in "abc")
OLD_A, OLD_B, OLD_C = (one([], machine_id=name) for name in "abc")
NEW = wish(A, B, C, generation=2)

Attempts = dict[str, Attempt]


def gated(
    desired: Desired, observed: Observed, attempts: Attempts | None = None, *overrides: Override
) -> tuple[tuple[Operation, ...], Decision]:
    drifts = diff(desired, observed)
    operations = plan(desired, drifts)
    situation = Situation(
        desired=desired,
        observed=observed,
        drifts=drifts,
        memory=Memory(attempts=attempts or {}),
        quarantined={},
        overrides=overrides,
        running=frozenset(),
        jitter=0.0,
    )
    return operations, gate(operations, situation)


def said(desired: Desired, observed: Observed, attempts: Attempts | None = None, *overrides: Override) -> list[str]:
    """What runs and what is held, with the reason and how many ms until the next attempt."""
    operations, decision = gated(desired, observed, attempts, *overrides)
    assert {*decision.run, *(h.operation for h in decision.held)} == set(operations)
    lines = [f"run {o.key}" for o in decision.run]
    for h in decision.held:
        wait = "" if h.next_ms is None else f", next in {h.next_ms - observed.now_ms} ms"
        lines.append(f"hold {h.operation.key}: {h.why}{wait}")
    return lines


def attempt(count: int = 1, ago_ms: int = 0, *, in_flight: bool = False) -> Attempt:
    began_ms = NOW_MS - ago_ms
    return Attempt(count=count, last_ms=began_ms, in_flight_since_ms=began_ms if in_flight else None)


def outdated(*machines: DesiredMachine, **changes: Any) -> Observed:
    """Each of a, b, c runs and is ready; those given report their old configuration."""
    old = {m.id: report(m) for m in machines}
    ready = {m.id: report(m, generation=2) for m in (A, B, C)}
    return look(A, B, C, **{"machines": {**ready, **old}, **changes})


def gone(*ids: str) -> dict[MachineId, Instance]:
    found = {m.id: running(m) for m in (A, B, C)}
    dead = {MachineId(i): Instance(machine_id=MachineId(i), state=InstanceState.GONE) for i in ids}
    return {**found, **dead}


# --- backoff


@pytest.mark.parametrize(
    ("count", "pause_ms"),
    [(0, 2_000), (1, 2_000), (2, 4_000), (3, 8_000), (4, 16_000), (5, 32_000), (6, 60_000), (7, 60_000), (99, 60_000)],
)
def test_backoff_doubles_to_a_cap(count: int, pause_ms: int) -> None:
    assert backoff_ms(count, 0.0) == pause_ms
    assert backoff_ms(count, 1.0) == pause_ms * 9 // 10


def test_backoff_says_how_often_it_was_tried_and_when_it_will_be_again() -> None:
    dead = look(A, instances={})
    desired = wish(A)
    key = "start-machine/a"
    assert said(desired, dead) == [f"run {key}"]
    assert said(desired, dead, {key: attempt(1, 500)}) == [f"hold {key}: backoff after 1 attempt, next in 1500 ms"]
    assert said(desired, dead, {key: attempt(3, 500)}) == [f"hold {key}: backoff after 3 attempts, next in 7500 ms"]
    assert said(desired, dead, {key: attempt(9, 59_999)}) == [f"hold {key}: backoff after 9 attempts, next in 1 ms"]
    assert said(desired, dead, {key: attempt(9, 60_000)}) == [f"run {key}"]


WINDOW_MS = 1_800_000


def test_attempts_are_counted_and_end() -> None:
    (operation,) = plan(wish(A), diff(wish(A), look(A, instances={})))
    memory = memories.tried(Memory(), operation, 10, WINDOW_MS)
    begun = Attempt(count=1, last_ms=10, in_flight_since_ms=10, times_ms=(10,))
    assert memory.attempts == {operation.key: begun}
    memory = memories.ended(memory, operation.key, ok=False)
    assert memory.attempts == {operation.key: structs.replace(begun, in_flight_since_ms=None)}
    memory = memories.tried(memory, operation, 20, WINDOW_MS)
    assert memory.attempts == {operation.key: Attempt(count=2, last_ms=20, in_flight_since_ms=20, times_ms=(10, 20))}
    memory = memories.tried(memory, operation, 15 + WINDOW_MS, WINDOW_MS)
    assert memory.attempts[operation.key].times_ms == (20, 15 + WINDOW_MS)
    assert memories.ended(Memory(), "unknown", ok=True) == Memory()


def operation(verb: Verb, machine_id: str = "a") -> Operation:
    return Operation(verb=verb, machine_id=MachineId(machine_id), cause="", origin="")


START, RESTART, SEND = (operation(v) for v in (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.SEND_CONFIG))


@pytest.mark.parametrize(
    ("before", "needed", "after"),
    [
        # Needed still: kept, however old.
        ({START.key: attempt(3, 600_000)}, (START,), {START.key: attempt(3, 600_000)}),
        # Healed for less than a minute: kept, so that a crash loop goes on backing off.
        ({START.key: attempt(3, 59_999)}, (), {START.key: attempt(3, 59_999)}),
        # Healed for a minute: its backoff begins anew, so that the next failure is answered at once.
        ({START.key: attempt(3, 60_000)}, (), {START.key: attempt(0, 60_000)}),
        # Healed for the budget's window: forgotten.
        ({START.key: attempt(3, WINDOW_MS)}, (), {}),
        # The reconciler's own operations end by themselves, however long they take.
        ({RESTART.key: attempt(1, 600_000, in_flight=True)}, (), {RESTART.key: attempt(1, 600_000, in_flight=True)}),
        # A command that is not needed any more has worked; its acknowledgement may have been lost.
        ({SEND.key: attempt(1, 1_000, in_flight=True)}, (), {SEND.key: attempt(1, 1_000)}),
        ({SEND.key: attempt(1, 1_000, in_flight=True)}, (SEND,), {SEND.key: attempt(1, 1_000, in_flight=True)}),
        ({SEND.key: attempt(1, 60_000, in_flight=True)}, (), {SEND.key: attempt(0, 60_000)}),
    ],
)
def test_what_has_healed_is_forgotten(before: Attempts, needed: tuple[Operation, ...], after: Attempts) -> None:
    keys = frozenset(o.key for o in needed)
    assert memories.settled(Memory(attempts=before), keys, NOW_MS, WINDOW_MS).attempts == after


# --- under way


def test_an_operation_under_way_is_not_begun_again_until_it_is_taken_for_lost() -> None:
    observed, key = outdated(OLD_A), "send-configuration/a"
    lost_ms = IN_FLIGHT_MS + 30_000  # a's drain
    assert said(NEW, observed, {key: attempt(1, 5_000, in_flight=True)}) == [f"hold {key}: under way"]
    assert said(NEW, observed, {key: attempt(1, lost_ms - 1, in_flight=True)}) == [f"hold {key}: under way"]
    assert said(NEW, observed, {key: attempt(1, lost_ms, in_flight=True)}) == [f"run {key}"]


@pytest.mark.parametrize("verb", ["restart-machine", "remove-machine", "send-configuration"])
def test_nothing_is_done_inside_a_machine_that_is_in_hand(verb: str) -> None:
    stopped = report(A, generation=2).report
    programs = {n: structs.replace(p, state="STOPPED") for n, p in stopped.programs.items() if n == "simulation"}
    observed = outdated(machines={A.id: report(A, generation=2, programs={**stopped.programs, **programs})})
    desired = wish(A, generation=2)
    key = "start-program/a/simulation"
    why = "its machine is being started, stopped or configured"
    assert said(desired, observed, {f"{verb}/a": attempt(in_flight=True)}) == [f"hold {key}: {why}"]
    assert said(desired, observed, {f"{verb}/a": attempt()}) == [f"run {key}"]
    assert said(desired, observed, {f"{verb}/b": attempt(in_flight=True)}) == [f"run {key}"]


def test_a_command_to_a_machine_that_ended_is_void() -> None:
    """Else a supervisord killed while its configuration changes would stay down for minutes."""
    memory = {"send-configuration/a": attempt(1, 20_000, in_flight=True)}
    observed = outdated(OLD_A, instances=gone("a"))
    assert said(NEW, observed, memory) == ["run start-machine/a"]
    again = outdated(OLD_A, instances={**gone(), A.id: running(A, NOW_MS - 10_000)})
    again = structs.replace(again, machines={**again.machines, A.id: report(OLD_A, started_ms=NOW_MS - 9_000)})
    assert said(NEW, again, memory) == ["run send-configuration/a"]


# --- max_unavailable


def test_one_machine_at_a_time_in_the_order_of_the_file() -> None:
    why = "max_unavailable: 1 of 1 are out already (a)"
    assert said(NEW, outdated(OLD_A, OLD_B, OLD_C)) == [
        "run send-configuration/a",
        f"hold send-configuration/b: {why}",
        f"hold send-configuration/c: {why}",
    ]
    two = structs.replace(NEW, max_unavailable=2)
    assert said(two, outdated(OLD_A, OLD_B, OLD_C)) == [
        "run send-configuration/a",
        "run send-configuration/b",
        "hold send-configuration/c: max_unavailable: 2 of 2 are out already (a, b)",
    ]


HELD = "hold send-configuration/b: max_unavailable: 1 of 1 are out already (a)"


@pytest.mark.parametrize(
    ("observed", "memory", "expected"),
    [
        # a was told, and has not said anything yet: its report still reads ready.
        (
            outdated(OLD_A, OLD_B),
            {"send-configuration/a": attempt(1, 5_000, in_flight=True)},
            ["hold send-configuration/a: under way", HELD],
        ),
        # It was done at once, and the report lags behind.
        (
            outdated(OLD_A, OLD_B),
            {"send-configuration/a": attempt(1, 500)},
            ["hold send-configuration/a: backoff after 1 attempt, next in 1500 ms", HELD],
        ),
        # a is being restarted; its last report still reads ready.
        (outdated(OLD_B), {"restart-machine/a": attempt(1, 40_000, in_flight=True)}, [HELD]),
        # a was restarted, and boots: no report, or one of its former life.
        (
            outdated(OLD_B, instances={**gone(), A.id: running(A, NOW_MS - 5_000, "2-2")}),
            {"restart-machine/a": attempt(1, 8_000)},
            [HELD],
        ),
        # a is on its way.
        (outdated(OLD_B, machines={A.id: report(A, status=MachineStatus.STARTING), B.id: report(OLD_B)}), {}, [HELD]),
        (
            outdated(OLD_B, machines={A.id: report(A, status=MachineStatus.CONFIGURING), B.id: report(OLD_B)}),
            {},
            [HELD],
        ),
        # a has settled with an error: the others need not wait for it.
        (
            outdated(
                machines={
                    A.id: report(A, status=MachineStatus.CONFIGURING, error="x", generation=2),
                    B.id: report(OLD_B),
                }
            ),
            {},
            ["run send-configuration/b"],
        ),
        # a has long been silent, and nobody knows of it: it may never come back.
        (
            outdated(
                machines={A.id: report(A, status=MachineStatus.STARTING, seen_ms=OLD_MS), B.id: report(OLD_B)},
                instances={A.id: Instance(machine_id=A.id, state=InstanceState.UNKNOWN), B.id: running(B)},
            ),
            {},
            ["run send-configuration/b"],
        ),
        # a's host is cut off: what a is sent waits for it, and nobody else does.
        (
            outdated(
                machines={A.id: report(OLD_A, seen_ms=OLD_MS), B.id: report(OLD_B)},
                instances={A.id: Instance(machine_id=A.id, state=InstanceState.UNKNOWN), B.id: running(B)},
            ),
            {"send-configuration/a": attempt(1, 20_000, in_flight=True)},
            ["run send-configuration/b"],
        ),
        # a cannot be started: it was down before.
        (
            outdated(OLD_B, instances=gone("a")),
            {"start-machine/a": attempt(7, 1_000)},
            ["run send-configuration/b", "hold start-machine/a: backoff after 7 attempts, next in 59000 ms"],
        ),
        # a is ready again.
        (outdated(OLD_B), {"send-configuration/a": attempt(1, 5_000)}, ["run send-configuration/b"]),
    ],
)
def test_who_counts_as_disrupted(observed: Observed, memory: Attempts, expected: list[str]) -> None:
    assert said(wish(A, B, generation=2), observed, memory) == expected


def test_a_machine_that_is_not_ready_may_be_configured_at_once() -> None:
    """It serves nobody; waiting for it to be ready first would wait for what the new configuration mends."""
    observed = outdated(
        machines={
            A.id: report(OLD_A, status=MachineStatus.CONFIGURING, error="not up: x"),
            B.id: report(OLD_B, status=MachineStatus.STARTING),
        }
    )
    assert said(wish(A, B, generation=2), observed) == ["run send-configuration/a", "run send-configuration/b"]


def test_a_generation_that_changes_nothing_reaches_all_machines_at_once() -> None:
    assert said(wish(A, B, C, generation=2), look(A, B, C)) == [f"run send-configuration/{name}" for name in "abc"]


def test_machines_that_do_not_run_are_all_started_at_once() -> None:
    assert said(wish(A, B, C), look(instances={})) == [f"run start-machine/{name}" for name in "abc"]


def test_silent_machines_are_restarted_one_at_a_time() -> None:
    """Their programs may well be working: if all agents are cut off, not all machines go down."""
    silent = look(A, B, C, machines={m.id: report(m, seen_ms=OLD_MS) for m in (A, B, C)})
    never = look(A, B, C, machines={})
    why = "max_unavailable: 1 of 1 are out already (a)"
    for observed in (silent, never):
        assert said(wish(A, B, C), observed) == [
            "run restart-machine/a",
            f"hold restart-machine/b: {why}",
            f"hold restart-machine/c: {why}",
        ]


def test_a_machine_that_never_reports_does_not_keep_the_others_from_their_turn() -> None:
    never = look(A, B, machines={})
    memory = {"restart-machine/a": attempt(6, BOOT_GRACE_MS + 5_000)}
    assert said(wish(A, B), never, memory) == [
        "run restart-machine/b",
        "hold restart-machine/a: backoff after 6 attempts, next in 25000 ms",
    ]


# --- paused


def pause(machine_id: str | None = None, program: str | None = None) -> Override:
    return Override(
        kind=OverrideKind.PAUSE,
        machine_id=MachineId(machine_id) if machine_id else None,
        program=ProgramName(program) if program else None,
        reason="maintenance",
        by="kim",
    )


def test_paused_holds_everything_and_says_who() -> None:
    observed = outdated(OLD_B, instances=gone("a"))
    assert said(NEW, observed, None, pause()) == [
        "hold start-machine/a: paused: maintenance (by kim)",
        "hold send-configuration/b: paused: maintenance (by kim)",
    ]


def test_a_machine_or_a_program_is_paused_alone() -> None:
    observed = outdated(OLD_B, instances=gone("a"))
    assert said(NEW, observed, None, pause("a")) == [
        "run send-configuration/b",
        "hold start-machine/a: a is paused: maintenance (by kim)",
    ]
    silent = look(A, machines={A.id: report(A, seen_ms=OLD_MS)})
    held = ["hold restart-machine/a: a/simulation is paused: maintenance (by kim)"]
    assert said(wish(A), silent, None, pause("a", "simulation")) == held
    assert said(wish(A), silent, None, pause("b")) == ["run restart-machine/a"]


# --- what is told of a drift


def told(
    observed: Observed, memory: Attempts | None = None, *, desired: Desired | None = None
) -> list[tuple[str, ...]]:
    wanted = desired or wish(A)
    drifts = diff(wanted, observed)
    _, decision = gated(wanted, observed, memory)
    found: list[tuple[str, ...]] = []
    for d in drifts:
        action, held, next_ms = describe(d, remedy(d, wanted), decision)
        found.append((str(d.kind), action, held, "" if next_ms is None else f"{next_ms - NOW_MS} ms"))
    return found


START_A = "start machine a  (start): it was never started  [emp.yaml:a]"
DEAD = look(A, instances={})


def test_a_drift_is_told_with_its_action_and_what_holds_it() -> None:
    assert told(DEAD) == [("machine-missing", START_A, "", "")]
    held = {"start-machine/a": attempt(2, 1_000)}
    assert told(DEAD, held) == [("machine-missing", START_A, "backoff after 2 attempts", "3000 ms")]
    under_way = {"start-machine/a": attempt(2, 1_000, in_flight=True)}
    assert told(DEAD, under_way) == [("machine-missing", START_A, "under way", "")]


@pytest.mark.parametrize(
    ("observed", "kind", "why"),
    [
        (look(A, instances={A.id: running(A, NOW_MS)}, machines={}), Kind.MACHINE_BOOTING, "nothing to do yet"),
        (look(A, instances={}, answered=(), machines={}), Kind.MACHINE_UNREACHABLE, "needs a person"),
        (look(A, B), Kind.MACHINE_SURPLUS, "needs a person"),
        (look(A, B, instances={A.id: running(A)}), Kind.MACHINE_FOREIGN, "needs a person"),
    ],
)
def test_a_drift_without_an_action_says_why(observed: Observed, kind: Kind, why: str) -> None:
    assert told(observed) == [(str(kind), "", why, "")]


def test_a_new_generation_does_not_wait_for_the_last_ones_backoff() -> None:
    """Five quick scalings would cost 2 + 4 + 8 + 16 + 32 s, though each was taken over at once."""
    memory = {
        "send-configuration/a": attempt(5, 20_000),
        "send-configuration/b": attempt(5, 20_000, in_flight=True),
        "restart-program/a/x": attempt(5, 20_000),
    }
    kept = memories.asked_anew(Memory(attempts=memory), ()).attempts
    assert set(kept) == {"send-configuration/b", "restart-program/a/x"}
    assert set(memories.asked_anew(Memory(attempts=memory), [MachineId("a")]).attempts) == {"send-configuration/b"}
    taken_over = memories.ended(Memory(attempts=memory), "send-configuration/b", ok=True)
    assert taken_over.attempts["send-configuration/b"].count == 0
    assert taken_over.attempts["send-configuration/b"].in_flight_since_ms is None
    assert (
        memories.ended(Memory(attempts=memory), "restart-program/a/x", ok=True).attempts["restart-program/a/x"].count
        == 5
    )


def test_why_the_last_attempt_failed_is_remembered_until_one_succeeds() -> None:
    (start,) = plan(wish(A), diff(wish(A), look(A, instances={})))
    memory = memories.tried(Memory(), start, NOW_MS, WINDOW_MS)
    memory = memories.ended(memory, start.key, ok=False, error="no image " + "x" * 5_000)
    assert memory.attempts[start.key].error == ("no image " + "x" * 5_000)[: memories.ERROR_CHARS]
    memory = memories.tried(memory, start, NOW_MS + 1, WINDOW_MS)
    unknown = memories.ended(memory, start.key, ok=False)
    assert unknown.attempts[start.key].error.startswith("no image")
    assert memories.ended(memory, start.key, ok=True).attempts[start.key].error == ""
    healed = memories.settled(unknown, frozenset(), NOW_MS + memories.RESET_AFTER_MS + 1, WINDOW_MS)
    assert healed.attempts[start.key].error == ""
