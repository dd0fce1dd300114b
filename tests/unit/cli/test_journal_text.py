"""What `emp journal`, `emp journal --replay` and `emp explain` print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from emp_orch.cli.output.explain_text import text
from emp_orch.cli.output.journal_text import line, moment
from emp_orch.cli.output.replay_text import lines, summary
from emp_orch.control.host.fileline import quoted
from emp_orch.control.status.replay import verdict
from emp_orch.errors import UsageError
from emp_orch.fleet.journal.advice import advice
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, decide
from emp_orch.store.drift_stories import Explained
from emp_orch.store.fleet.events import Event
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.journal_reads import Wanted, wanted
from emp_orch.store.fleet.rounds import Kept, Recorded, pack, unpack
from support.fleet.fleets import NOW_MS, SIMULATION, look, one, report, wish
from support.fleet.rounds import FATAL_KEY, OPS, PROGRAM, START_KEY, World, fatal

M = one([SIMULATION])


def entry(type_: str, at_ms: int = NOW_MS, **data: Any) -> Event:
    return Event(id=f"{at_ms}-0", type=type_, data={"type": type_, **data})


def told(type_: str, **data: Any) -> str:
    """The line without its time."""
    return " ".join(line(entry(type_, **data))[len(moment(NOW_MS)) :].split())


def shown(world: World) -> list[str]:
    return [" ".join(line(entry(n.type, n.at_ms, **n.data)).split()[2:]) for n in world.journal]


def test_the_lines_of_a_repair() -> None:
    world = World()
    world.round(fatal())
    world.ends(START_KEY, error="no such file", after_ms=100)
    world.round(fatal(), after_ms=400)
    world.round(look(M), after_ms=3_500)
    again = moment(NOW_MS + 2_000)[11:]
    assert shown(world) == [
        f"drift opened m {PROGRAM} program-fatal: RUNNING → FATAL; supervisord gave up after its retries"
        f" (seen after 700ms) [emp.yaml:simulation]",
        f"decided m {PROGRAM} program-fatal: start program now",
        f"begun m {PROGRAM} start program m {PROGRAM} (start): it is FATAL: supervisord gave up after its retries"
        f" [emp.yaml:simulation]",
        f"ended m {PROGRAM} start program: failed: no such file",
        f"decided m {PROGRAM} program-fatal: start program waits: backoff after 1 attempt; next at {again}",
        f"drift closed m {PROGRAM} program-fatal healed after 4s",
    ]


@pytest.mark.parametrize(
    ("type_", "data", "words"),
    [
        ("paused", {"scope": "fleet", "reason": "disk swap", "by": "ops"}, "paused fleet disk swap (by ops)"),
        ("drained", {"machine_id": "m", "scope": "m", "by": "ann"}, "drained m no reason given (by ann)"),
        (
            "quarantined",
            {"operation": START_KEY, "reason": "in vain"},
            f"quarantined m {PROGRAM} start program: in vain",
        ),
        ("breaker_opened", {"reason": "5 of 8 failed"}, "breaker opened fleet 5 of 8 failed"),
        ("breaker_trial", {"machines": ["a", "b"]}, "breaker tries fleet a, b"),
        ("rollout_stalled", {"generation": 4, "machines": ["a"]}, "rollout stalled fleet generation 4: a"),
        ("rolled_back", {"generation": 3, "as": 5, "reason": "x"}, "rolled back fleet generation 3 again, as 5: x"),
        ("operation_sent", {"operation": START_KEY}, f"sent m {PROGRAM} start program: the machine has it"),
        (
            "operation_ended",
            {"operation": "start-machine/m", "outcome": "failed", "error": "no disk", "hint": "make room"},
            "ended m start machine: failed: no disk (make room)",
        ),
        (
            "pool_resized",
            {"pool": "renders", "from": 0, "to": 3, "reason": "3 jobs wait"},
            "pool resized renders 0 → 3: 3 jobs wait",
        ),
        (
            "pool_resized",
            {"pool": "renders", "to": 0, "reason": "nobody waits"},
            "pool resized renders 0: nobody waits",
        ),
        (
            "scaled",
            {"machine_id": "", "scope": "renders", "size": 3, "by": "ann"},
            "scaled renders held at 3: no reason given (by ann)",
        ),
        (
            "member_asked",
            {"machine_id": "r-1", "pool": "r", "reason": "2 jobs wait"},
            "member asked for r-1 2 jobs wait",
        ),
        ("member_removed", {"machine_id": "r-1", "pool": "r", "reason": "idle"}, "member removed r-1 idle"),
        (
            "member_joined",
            {"machine_id": "r-1", "pool": "r", "how": "new", "name": "n"},
            "member joined r-1 new, calls itself n",
        ),
        (
            "scale_lifted",
            {"machine_id": "", "scope": "renders", "size": 0, "reason": "night"},
            "scale lifted renders follows its queue; was held at 0: night",
        ),
        ("of_tomorrow", {"machine_id": "m", "n": [1]}, "of tomorrow m n=[1]"),
        ("drift_opened", {}, "drift opened fleet : → ;"),
        ("decision", {"key": 7, "next_ms": "x"}, "decided fleet : waits:"),
        ("malformed", {"error": "no\x1b[2J\nJSON"}, "malformed fleet error=no\\x1b[2J\\nJSON"),
    ],
)
def test_every_entry_is_one_line(type_: str, data: dict[str, Any], words: str) -> None:
    assert told(type_, **data) == words


# -- which entries


def test_filters() -> None:
    assert wanted(NOW_MS, since="90s").since_ms == NOW_MS - 90_000
    assert wanted(NOW_MS, since="2d").since_ms == NOW_MS - 172_800_000
    assert wanted(NOW_MS, since="1970-01-12T00:00:00Z").since_ms == 950_400_000
    for bad in ("yesterday", "1w", "-5m", "1h30m", "9" * 40):
        with pytest.raises(UsageError, match="is no age and no time"):
            wanted(NOW_MS, since=bad)
    with pytest.raises(UsageError, match="type: there is no 'drift'"):
        wanted(NOW_MS, types=["drift"])
    with pytest.raises(UsageError, match="kind: there is no 'fatal'"):
        wanted(NOW_MS, kinds=["fatal"])
    opened = entry("drift_opened", kind="program-fatal", machine_id="m", subject=PROGRAM)
    assert Wanted().fits(opened) and Wanted(kinds=frozenset({"program-fatal"}), machine_id="m").fits(opened)
    for other in (
        Wanted(since_ms=NOW_MS + 1),
        Wanted(machine_id="n"),
        Wanted(types=frozenset({"decision"})),
        Wanted(kinds=frozenset({"machine-stale"})),
    ):
        assert not other.fits(opened)
    assert Wanted(kinds=frozenset({"program-fatal"})).fits(entry("decision", key=FATAL_KEY))


# -- replay


def kept(recorded: Recorded, version: str = "1.0") -> Kept:
    return Kept(id=f"{NOW_MS}-0", version=version, round=unpack(pack(recorded)))


def recorded() -> Recorded:
    inputs = Inputs(desired=wish(M), observed=fatal(), memory=Memory(), overrides=(), jitter=0.5)
    done = decide(inputs)
    return Recorded(
        inputs=inputs, plan=tuple(o.text for o in done.operations), run=tuple(o.key for o in done.decision.run)
    )


def test_a_recorded_round_comes_to_the_same() -> None:
    same = verdict(kept(recorded()))
    assert same.same is True
    assert lines(same) == [f"{moment(NOW_MS)}  same  generation 1, 1 differences, begun: {START_KEY}"]


def test_another_decision_is_shown() -> None:
    round_ = recorded()
    paused = structs.replace(round_, inputs=structs.replace(round_.inputs, overrides=(OPS,)))
    differs = verdict(kept(paused))
    assert (differs.same, differs.only_then, differs.only_now) == (False, (f"begun {START_KEY}",), ())
    assert lines(differs)[1:] == [f"    then  begun {START_KEY}"]
    planned = verdict(kept(structs.replace(round_, plan=("stop the world",), run=round_.run)))
    assert planned.only_then == ("stop the world",) and len(planned.only_now) == 1
    assert summary([differs, planned, verdict(kept(round_))]) == "1 of 3 rounds the same, 2 DIFFER"


def test_a_record_of_another_version_is_named() -> None:
    found = verdict(Kept(id=f"{NOW_MS}-0", version="9.9", round=unpack("nonsense")))
    assert found.same is None
    assert lines(found) == [f"{moment(NOW_MS)}  cannot be read: emp 9.9 wrote it"]
    assert summary([found]) == "0 of 1 rounds the same, 1 cannot be read by this version"


# -- explain


def explained(world: World, key: str = FATAL_KEY, line_: str = "") -> list[str]:
    story = world.story(key)
    can_do = advice(story.now, ()) if story.now else ()
    return text(Explained(story=story, can_do=can_do), world.now_ms, line_).splitlines()


def test_a_drift_that_stands() -> None:
    world = World()
    world.round(fatal())
    world.ends(START_KEY, error="no such file", after_ms=100)
    world.round(fatal(), after_ms=400)
    at = [moment(NOW_MS + ms)[11:] for ms in (0, 100, 500)]
    assert explained(world, line_="simulation: {scale: per_machine}") == [
        f"program-fatal of {PROGRAM} on m: stands",
        "  differs   RUNNING → FATAL",
        "  cause     supervisord gave up after its retries",
        f"  since     {moment(NOW_MS)}, 500ms ago",
        "  detected  700ms after it began",
        "  from      emp.yaml:simulation: simulation: {scale: per_machine}",
        f"  leads to  start program m {PROGRAM}  (start): it is FATAL: supervisord gave up after its retries"
        "  [emp.yaml:simulation]",
        f"  waits     backoff after 1 attempt; next in 1s, at {moment(NOW_MS + 2_000)[11:19]}",
        "  attempts  1 attempt so far",
        f"  decided   {at[0]}  to do it now",
        f"            {at[2]}  to wait: backoff after 1 attempt",
        f"  tried     {at[0]}  start program m {PROGRAM}: failed after 100ms: no such file",
        f"  you can   `emp logs machine-m/{PROGRAM}` shows what it said",
        f"            `emp restart m {PROGRAM}` tries now, without the pause",
        f"  key       {FATAL_KEY}",
    ]


def test_a_drift_that_has_closed() -> None:
    world = World()
    for _ in range(2):
        world.round(fatal(), after_ms=1_000)
        world.ends(START_KEY, after_ms=700)
        world.round(look(M), after_ms=1_300)
        world.now_ms += 200_000
    said = explained(world)
    assert said[0] == f"program-fatal of {PROGRAM} on m: has closed after 2s"
    assert f"  since     {moment(NOW_MS + 204_000)} until {moment(NOW_MS + 206_000)}" in said
    assert any(s.startswith(f"  healed by start program m {PROGRAM}  (start): it is FATAL") for s in said)
    assert f"  before    {moment(NOW_MS + 1_000)}  healed after 2s by start program m {PROGRAM}" in said
    assert "            2 times in all, as far as the journal goes back" in said
    assert not any("you can" in s for s in said)


def test_a_drift_that_went_by_itself() -> None:
    world = World()
    starting = look(M, machines={M.id: report(M, status="starting")})
    world.round(starting)
    world.round(look(M), after_ms=2_000)
    said = explained(world, "machine-starting/m/m")
    assert said[0] == "machine-starting of m: has closed after 2s"
    assert any(s.startswith("  healed by itself: supervisord") for s in said)


# -- the line of emp.yaml

FILE = """\
version: 1
name: f
redis: {url: embedded}
services:
  simulation: {scale: per_machine, builtin: simulation, port: 8299, env: {UP: "http://me:hush@far.example/"}}
machines:
  m: {num_gpus: 1, services: [simulation]}
"""


def generation(folder: Path) -> Generation:
    from emp_orch import manifest

    path = folder / "emp.yaml"
    path.write_text(FILE)
    fleet = manifest.load(path, {})
    return Generation(number=1, at_ms=int(path.stat().st_mtime * 1000) + 1, fleet=fleet, digest="")


def test_the_line_is_quoted_while_the_file_is_as_it_was_applied(tmp_path: Path) -> None:
    applied = generation(tmp_path)
    (machine,) = applied.fleet.machines
    assert quoted(tmp_path, machine.origin, applied, {}) == "m: {num_gpus: 1, services: [simulation]}"
    service = applied.fleet.services["simulation"].origin  # type: ignore[index]
    assert "http://***@far.example" in quoted(tmp_path, service, applied, {})
    assert "hush" not in quoted(tmp_path, service, applied, {})
    assert quoted(tmp_path, "emp.yaml:1:1", applied, {}) == ""
    assert quoted(tmp_path, "../emp.yaml:7:3", applied, {}) == ""
    assert quoted(tmp_path, machine.origin, structs.replace(applied, at_ms=applied.at_ms - 60_000), {}) == ""
    (tmp_path / "emp.yaml").write_text("# a line above\n" + FILE)
    later = structs.replace(applied, at_ms=applied.at_ms + 3_600_000)
    assert quoted(tmp_path, machine.origin, later, {}) == ""
    (tmp_path / "emp.yaml").unlink()
    assert quoted(tmp_path, machine.origin, applied, {}) == ""
