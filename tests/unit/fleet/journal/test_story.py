"""The journal of a drift, written by real rounds, and what is told from it."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.fleet.drift.kinds import CONTROL, Drift, Kind
from emp_orch.fleet.journal.advice import advice
from emp_orch.fleet.journal.drift_story import drift_story, meant
from emp_orch.fleet.journal.entries import TYPES, concerns, kind_of, machine_of, subject_of
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.policy.holds import NEEDS_A_PERSON, Hold
from emp_orch.fleet.policy.item import Item
from support.fleet.fleets import NOW_MS, look, running
from support.fleet.rounds import FATAL_KEY, OPS, PROGRAM, START_KEY, M, Note, World, fatal


def test_a_drift_from_its_beginning_to_its_end() -> None:
    world = World()
    world.round(look(M))
    assert world.journal == []
    world.round(fatal(), after_ms=300)
    world.ends(START_KEY, after_ms=400)
    world.round(look(M), after_ms=100)
    assert world.types() == ["drift_opened", "decision", "operation_begun", "operation_ended", "drift_closed"]
    assert set(world.types()) <= set(TYPES)
    told = world.story(FATAL_KEY)
    assert (told.now, told.times, told.names) == (None, 1, ("program-fatal", "m", PROGRAM))
    last = told.last
    assert (last.detected_after_ms, last.healed_after_ms, last.observed) == (1_000, 500, "FATAL")
    assert last.healed_by is not None
    assert (last.healed_by.operation, last.healed_by.outcome) == (START_KEY, "done")
    assert last.healed_by.ended_ms == last.healed_by.begun_ms + 400


def test_the_outcome_may_come_after_the_effect() -> None:
    world = World()
    world.round(fatal())
    world.round(look(M), after_ms=100)
    assert world.story(FATAL_KEY).last.tries[0].outcome == ""
    world.ends(START_KEY, after_ms=50)
    assert world.story(FATAL_KEY).last.tries[0].outcome == "done"


def test_what_was_tried_in_vain_and_why_it_waits_now() -> None:
    world = World()
    world.round(fatal())
    world.ends(START_KEY, error="no such file", after_ms=100)
    world.round(fatal(), after_ms=100)
    told = world.story(FATAL_KEY)
    assert told.now is not None and told.last.healed_by is None
    assert [(t.outcome, t.error) for t in told.last.tries] == [("failed", "no such file")]
    assert [d.decision for d in told.last.decisions] == ["run", "backoff after 1 attempt"]
    assert (told.now.hold, told.now.attempts) == (Hold.BACKOFF, 1)
    assert told.last.decisions[-1].next_ms == told.now.next_attempt_ms
    assert advice(told.now, ()) == (
        f"`emp logs machine-m/{PROGRAM}` shows what it said",
        f"`emp restart m {PROGRAM}` tries now, without the pause",
    )


def test_former_times_are_told_the_latest_first() -> None:
    world = World()
    for _ in range(3):
        world.round(fatal(), after_ms=1_000)
        world.ends(START_KEY)
        world.round(look(M), after_ms=90_000)
    told = world.story(FATAL_KEY)
    assert (told.times, len(told.earlier)) == (3, 2)
    assert told.last.opened_ms > told.earlier[0].opened_ms > told.earlier[1].opened_ms


def test_a_drift_whose_beginning_fell_out_of_the_journal() -> None:
    world = World()
    world.round(fatal())
    world.journal.clear()
    assert world.story(FATAL_KEY).last.opened_ms == NOW_MS
    world.round(look(M), after_ms=2_000)
    last = world.story(FATAL_KEY).last
    assert (last.opened_ms, last.healed_after_ms) == (NOW_MS, 2_000)
    assert drift_story("program-fatal/m/other", None, world.journal) is None


def test_people_s_words_are_in_the_journal_and_hold() -> None:
    world = World()
    done = world.round(fatal(), OPS)
    assert world.types() == ["drift_opened", "paused", "decision"]
    (item,) = done.items
    assert (item.hold, item.held) == (Hold.PAUSE, "paused: disk swap (by ops)")
    assert advice(item, (OPS,)) == ("`emp resume` lets emp act again",)
    of_machine = structs.replace(OPS, machine_id=M.id, program=PROGRAM)
    (item,) = world.round(fatal(), of_machine).items
    assert advice(item, (of_machine,)) == (f"`emp resume m {PROGRAM}` lets emp act again",)
    world.round(fatal(), of_machine)
    world.round(fatal())
    assert [t for t in world.types() if t in ("paused", "pause_lifted")] == ["paused"] * 2 + ["pause_lifted"] * 2
    drain = Override(kind=OverrideKind.DRAIN, machine_id=M.id, reason="GPU swap", by="ann")
    world.round(look(M), drain)
    world.round(look(M))
    (began, lifted) = [n for n in world.journal if n.type.startswith("drain")]
    assert (began.type, lifted.type) == ("drained", "drain_lifted")
    assert began.data == {"machine_id": "m", "scope": "m", "reason": "GPU swap", "by": "ann"}


def test_a_machine_that_is_started_again() -> None:
    world = World()
    world.round(look(M))
    gone = look(M, instances={M.id: Instance(machine_id=M.id, state=InstanceState.GONE)})
    world.round(gone, after_ms=200)
    world.ends("start-machine/m", after_ms=10)
    world.round(look(M, instances={M.id: running(M)}), after_ms=2_000)
    assert world.types() == ["drift_opened", "decision", "operation_begun", "operation_ended", "drift_closed"]
    by = world.story("machine-missing/m/m").last.healed_by
    assert by is not None and by.text.startswith("start machine m  (start): ")


def test_which_drift_is_meant() -> None:
    standing = ["program-fatal/m1/comfyui-gpu0", "worker-missing/m1/m1-worker-0", "machine-stale/m10/m10"]
    closed = ["machine-missing/m2/m2", "program-fatal/m1/comfyui-gpu0", "program-fatal/m3/comfyui-gpu0"]
    assert meant([], standing, closed) == standing
    assert meant(["machine-missing/m2/m2"], standing, closed) == ["machine-missing/m2/m2"]
    assert meant(["stale"], standing, closed) == ["machine-stale/m10/m10"]
    assert meant(["m1"], standing, closed) == standing[:2]
    assert meant(["m1", "comfyui-gpu0"], standing, closed) == standing[:1]
    assert meant(["m1", "worker-missing"], standing, closed) == standing[1:2]
    assert meant(["comfyui-gpu0"], standing, closed) == standing[:1]
    assert meant(["m2"], standing, closed) == closed[:1]
    assert meant(["m3", "comfyui-gpu0"], standing, closed) == closed[2:]
    assert meant(["m", "worker"], standing, closed) == []


def test_entries_of_any_shape_are_read() -> None:
    for data in ({}, {"key": 7, "machine_id": None}, {"operation": "x"}, {"machines": 3}):
        assert (kind_of(data), subject_of(data), concerns(data, "m")) == ("", "", False)
        assert concerns(data, "")
    assert drift_story("a/b/c", None, [Note(1, t, {"key": "a/b/c", "operation": []}) for t in TYPES]) is not None
    quarantined = {"operation": START_KEY, "reason": "x"}
    assert (machine_of(quarantined), subject_of(quarantined)) == ("m", PROGRAM)
    assert concerns({"machines": ["m", "n"]}, "n") and concerns({"key": FATAL_KEY}, "", PROGRAM)


@pytest.mark.parametrize("kind", sorted(NEEDS_A_PERSON))
def test_whatever_needs_a_person_says_what_one_can_do(kind: Kind) -> None:
    drift = Drift(kind=kind, machine_id=M.id, subject="m", desired="", observed="", cause="", origin="")
    assert advice(Item(drift=drift, since_ms=0, action="", held="needs a person"), ())


def test_a_part_of_the_control_plane_is_no_machine() -> None:
    drift = Drift(
        kind=Kind.CONTROL_DOWN, machine_id=CONTROL, subject="api", desired="", observed="", cause="", origin=""
    )
    (_, logs) = advice(Item(drift=drift, since_ms=0, action="", hold=Hold.BACKOFF), ())
    assert logs == "`emp logs api` shows what it said"
