"""Histories that the simulation found, and that once ended badly: what was left of each when nothing could go."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.fleet.model.overrides import OverrideKind
from emp_orch.store.fleet.requests import Verb as Asked
from sim import fleets
from sim.settle import settle
from sim.simulation import FOREIGN, Simulation

M0, M1, M2, M3 = (MachineId(name) for name in fleets.MACHINES)


def test_a_clock_set_forward_silences_nobody() -> None:
    sim = Simulation().booted()
    sim.jump(3_600_000)
    settle(sim)
    assert not _begun(sim)


def test_a_clock_set_back_delays_nothing_by_so_much() -> None:
    sim = Simulation().booted()
    sim.strike("hung", M0)
    sim.jump(-3_600_000)
    assert settle(sim) < 120
    assert _begun(sim) == ["restart machine m0"]


def test_what_was_tried_is_tried_again_also_after_the_clock_was_set_back() -> None:
    sim = Simulation().booted()
    sim.strike("unstartable", M0)
    sim.strike("killed", M0)
    sim.seconds(40)
    sim.jump(-3_600_000)
    assert settle(sim) < 120


def test_an_emptied_redis_makes_nobody_stale() -> None:
    sim = Simulation().booted()
    for machine_id in (M0, M1, M2):
        sim.strike("hung", machine_id)
    sim.strike("redis emptied", FOREIGN)
    sim.second()
    sim.second()
    assert not _begun(sim)


def test_a_new_generation_makes_nobody_stale_who_merely_did_not_change() -> None:
    sim = Simulation().booted()
    sim.seconds(30)  # longer than a silence may last: nothing changed, and only heartbeats came
    sim.apply(sim.change(command="serve2"))
    settle(sim)
    assert not [text for text in _begun(sim) if text.startswith("restart machine")]


def test_a_drain_makes_nobody_stale_who_merely_did_not_change() -> None:
    sim = Simulation().booted()
    sim.seconds(30)
    sim.override(OverrideKind.DRAIN, M1, None)
    sim.seconds(20)
    assert not [text for text in _begun(sim) if text.startswith("restart machine")]


def test_whoever_asked_is_answered_also_when_the_machine_died_of_it() -> None:
    sim = Simulation().booted()
    sim.strike("hung", M2)
    sim.ask(Asked.RESTART_PROGRAM, M2, "web-gpu0")
    settle(sim)
    assert sim.redis.answers["1"]


def test_agents_hear_commands_again_after_redis_was_emptied_and_its_clock_set_back() -> None:
    sim = Simulation().booted()
    sim.apply(sim.change(gpus=2))
    sim.seconds(20)
    sim.jump(-5_000)
    sim.strike("redis emptied", FOREIGN)
    sim.seconds(3)
    sim.jump(-5_000)
    sim.strike("redis emptied", FOREIGN)
    sim.apply(sim.change(gpus=1))
    sim.seconds(3)
    sim.apply(sim.change(gpus=1))
    assert settle(sim) < 300


def test_the_next_machine_waits_until_the_last_is_in_order_whatever_status_it_tells() -> None:
    sim = Simulation().booted()
    sim.apply(sim.change(command="serve2"))
    sim.seconds(3)
    assert _begun(sim) == ["send configuration m0"]
    sim.ask(Asked.RESTART_PROGRAM, M0, "web-gpu0")
    host = sim.world.hosts[M0]
    while host.status is not MachineStatus.READY:
        sim.seconds(1)
    for program in (0, 1):
        sim.strike("slow", M0, program=program)
    sim.seconds(6)
    assert host.status is MachineStatus.READY
    assert not host.up(host.programs[ProgramName("web-gpu0")].want)
    assert "send configuration m1" not in _begun(sim)
    settle(sim)


def test_of_two_machines_that_are_drained_the_idle_one_goes_first() -> None:
    sim = Simulation().booted()
    sim.submit(2)
    sim.seconds(2)
    assert set(sim.world.jobs) == {"x0-worker-0", "m0-worker-0"}
    sim.override(OverrideKind.DRAIN, M0, None)
    sim.override(OverrideKind.DRAIN, M1, None)
    sim.seconds(2)
    assert _begun(sim) == ["send configuration m1"]


def test_a_machine_whose_report_is_damaged_half_way_is_not_taken_for_done() -> None:
    sim = Simulation().booted()
    sim.apply(sim.change(command="serve2"))
    sim.seconds(3)
    assert _begun(sim)[0] == "send configuration m0"
    sim.strike("slow", M0, program=0)
    sim.strike("damaged", M0)
    sim.seconds(4)
    assert sim.world.documents[M0][0] is None
    assert "send configuration m1" not in _begun(sim)


def test_a_machine_that_cannot_be_seen_is_not_restarted_for_a_program_that_used_up_its_tries() -> None:
    sim = Simulation().booted()
    sim.strike("blind", M1)
    sim.strike("sick", M1, program=0)
    sim.seconds(300)
    assert "restart machine m1" not in _begun(sim)
    settle(sim)


def test_a_leader_whose_redis_forgot_everything_remembers_what_it_tried() -> None:
    sim = Simulation().booted()
    sim.strike("crashing", M0)
    sim.seconds(60)
    before = {node.name: dict(node.reconciler._memory.attempts) for node in sim.nodes}
    sim.strike("redis emptied", FOREIGN)
    sim.seconds(6)
    leader = next(n for n in sim.nodes if n.backend.who == sim.redis.holder)
    assert leader.reconciler._memory.attempts.keys() >= before[leader.name].keys()


def _begun(sim: Simulation) -> list[str]:
    """What reconcilers began since all were up: `restart machine m0`."""
    return [text for text in sim.watch.begun if not text.startswith("start machine")]
