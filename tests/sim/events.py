"""All that may happen in a history: faults, people, time. Each event draws what it needs from `choose`.

Hypothesis draws by its strategies (machine.py), dice by a seed (dice.py): the histories are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.overrides import OverrideKind
from emp_orch.store.fleet.requests import Verb as Asked
from sim import fleets
from sim.simulation import FOREIGN, Simulation
from support.fleet.world import BROKEN, BROKEN_PACKAGE


class Choose(Protocol):
    def __call__(self, options: Sequence[Any], /) -> Any: ...


Event = Callable[[Simulation, Choose], None]

IDS = tuple(MachineId(name) for name in fleets.MACHINES)
PROGRAMS = (ProgramName("web-gpu0"), ProgramName("redis-worker-gpu0"))
SECONDS = tuple(range(1, 13))
# How many awaits of a round are done before a reconciler is stopped; a round has about so many.
AWAITS = tuple(range(24))
JUMPS_MS = (3_600_000, 20_000, -5_000, -40_000, -3_600_000)


def time_passes(sim: Simulation, choose: Choose) -> None:
    sim.seconds(choose(SECONDS))


def long_time_passes(sim: Simulation, choose: Choose) -> None:
    sim.seconds(choose((30, 70, 130)))


def a_machine_breaks(sim: Simulation, choose: Choose) -> None:
    sim.strike(choose(("killed", "hung", "cut", "unstartable", "blind", "damaged")), choose(IDS))


def a_program_breaks(sim: Simulation, choose: Choose) -> None:
    faults = ("crashing", "flaky", "sick", "slow", "worker hung", "worker strayed")
    sim.strike(choose(faults), choose(IDS), program=choose((0, 1)))


def something_heals(sim: Simulation, choose: Choose) -> None:
    sim.strike(choose(("joined", "seen", "well")), choose(IDS))


def many_break(sim: Simulation, choose: Choose) -> None:
    fault = choose(("killed", "hung", "cut", "joined", "crashing", "sick", "well", "worker hung"))
    for machine_id in IDS[: choose((2, 3))]:
        sim.strike(fault, machine_id)


def a_program_fails_on_and_on(sim: Simulation, choose: Choose) -> None:
    """Until its budget is used up, and perhaps its machine's."""
    machine_id = choose(IDS)
    if choose((False, True)):
        sim.strike("blind", machine_id)
    sim.strike(choose(("crashing", "flaky", "sick")), machine_id, program=choose((0, 1)))
    sim.seconds(choose((130, 200)))


def a_slot_fails_beside_one_that_works(sim: Simulation, choose: Choose) -> None:
    """Or a helper does, or both slots. Jobs come meanwhile."""
    sim.apply(sim.change(gpus=2))
    sim.seconds(30)
    sim.submit(12)
    sim.seconds(choose((1, 3)))
    for program in choose(((0,), (1,), (2,), (0, 1))):
        sim.strike(choose(("crashing", "flaky", "sick")), IDS[0], program=program)
    for _ in range(choose((2, 6))):
        sim.submit(4)
        sim.seconds(25)


def a_machine_hangs_again_and_again(sim: Simulation, choose: Choose) -> None:
    machine_id = choose(IDS)
    for _ in range(choose((1, 1, 4))):
        sim.strike("hung", machine_id)
        sim.seconds(50)


def a_machine_boots_unheard(sim: Simulation, choose: Choose) -> None:
    machine_id = choose(IDS)
    sim.strike("killed", machine_id)
    while machine_id not in sim.world.hosts and choose((True, True, True, False)):
        sim.seconds(1)
    sim.strike("cut", machine_id)
    sim.seconds(choose(SECONDS))
    sim.strike("joined", machine_id)


def a_host_is_cut_off_and_back(sim: Simulation, choose: Choose) -> None:
    """Its runtime, its agent and its workers are reached again one after the other."""
    machine_id = choose(IDS)
    sim.strike("blind", machine_id)
    sim.strike("cut", machine_id)
    sim.strike("workers cut", machine_id)
    sim.seconds(choose((5, 15, 40)))
    for fault in ("seen", "joined", "workers joined"):
        sim.strike(fault, machine_id)
        sim.seconds(choose((0, 1, 3)))


def redis_breaks(sim: Simulation, choose: Choose) -> None:
    sim.strike(choose(("redis away", "redis back", "redis emptied")), FOREIGN)


def messages_go_wrong(sim: Simulation, choose: Choose) -> None:
    sim.strike(choose(("acks lost", "acks late", "acks twice", "acks well")), FOREIGN)


def commands_come_late(sim: Simulation, choose: Choose) -> None:
    sim.strike("deaf", choose(IDS))


def commands_come_again(sim: Simulation, choose: Choose) -> None:
    """At times after another has taken the lead and commands, too."""
    if choose((False, True)):
        sim.to_node("kill", choose(sim.nodes), choose(AWAITS))
        sim.seconds(3)
        sim.apply(sim.change(command="serve2"))
        sim.seconds(5)
    for machine_id in IDS:
        sim.strike("hears again", machine_id)


def redis_clock_is_set(sim: Simulation, choose: Choose) -> None:
    sim.jump(choose(JUMPS_MS))


def a_hosts_clock_is_set(sim: Simulation, choose: Choose) -> None:
    sim.jump_host(choose(IDS), choose((40_000, -40_000)))


def to_a_reconciler(sim: Simulation, choose: Choose) -> None:
    what = choose(("freeze", "thaw", "kill", "start", "cut", "deaf", "joined"))
    sim.to_node(what, choose(sim.nodes), choose(AWAITS))


def a_reconciler_stands_still(sim: Simulation, choose: Choose) -> None:
    node = choose(sim.nodes)
    sim.to_node("freeze", node, choose(AWAITS))
    sim.seconds(choose(SECONDS))
    sim.to_node("thaw", node, 0)


def a_person_changes_the_command(sim: Simulation, choose: Choose) -> None:
    sim.apply(sim.change(command=choose(("serve", "serve2", BROKEN)), rollback=choose((False, True))))


def a_person_changes_the_image(sim: Simulation, choose: Choose) -> None:
    sim.apply(sim.change(image=choose(("image:1", "image:2", BROKEN)), rollback=choose((False, True))))


def another_package_is_applied(sim: Simulation, choose: Choose) -> None:
    packages = (fleets.PACKAGE, fleets.OTHER_PACKAGE, BROKEN_PACKAGE)
    sim.apply(sim.change(package=choose(packages), rollback=choose((False, True))))


def what_cannot_work_meets_a_machine_that_hangs(sim: Simulation, choose: Choose) -> None:
    """Whatever it is restarted for, it comes up with the generation in force."""
    sim.apply(sim.change(**{choose(("command", "image")): BROKEN}))
    sim.seconds(choose((1, 5, 20)))
    sim.strike(choose(("hung", "killed")), choose(IDS))
    sim.seconds(choose((30, 130)))


def a_person_changes_the_image_again_and_again(sim: Simulation, choose: Choose) -> None:
    for n in range(choose((2, 5))):
        sim.apply(sim.change(image=f"image:{n}"))
        sim.seconds(choose((20, 60, 120)))


def a_person_rolls_out_again_and_again(sim: Simulation, choose: Choose) -> None:
    for command in ("serve2", "serve", "serve2"):
        sim.apply(sim.change(command=command))
        sim.seconds(choose((3, 12, 40)))


def a_person_scales(sim: Simulation, choose: Choose) -> None:
    of = sim.change(names=fleets.MACHINES[: choose((2, 3, 4))], gpus=choose((1, 2)), max_unavailable=choose((1, 2)))
    sim.apply(of, prune=choose((False, True)))


def a_person_pauses(sim: Simulation, choose: Choose) -> None:
    machine_id = choose((None, *IDS))
    sim.override(OverrideKind.PAUSE, machine_id, choose((None, *PROGRAMS)) if machine_id else None)


def a_person_drains(sim: Simulation, choose: Choose) -> None:
    sim.override(OverrideKind.DRAIN, choose(IDS), None)


def a_person_resumes(sim: Simulation, choose: Choose) -> None:
    sim.lift()


def a_person_restarts(sim: Simulation, choose: Choose) -> None:
    program = choose((None, *PROGRAMS))
    sim.ask(Asked.RESTART_PROGRAM if program else Asked.RESTART_MACHINE, choose(IDS), program)


def a_person_closes_the_breaker(sim: Simulation, choose: Choose) -> None:
    sim.ask(Asked.CLOSE_BREAKER)


def jobs_come(sim: Simulation, choose: Choose) -> None:
    sim.submit(choose((1, 2, 3, 12)))


EVENTS: tuple[Event, ...] = (
    *(time_passes, long_time_passes, a_machine_breaks, a_program_breaks, something_heals, many_break),
    *(
        a_program_fails_on_and_on,
        a_slot_fails_beside_one_that_works,
        a_machine_hangs_again_and_again,
        a_machine_boots_unheard,
        a_host_is_cut_off_and_back,
        redis_breaks,
        messages_go_wrong,
        commands_come_late,
        commands_come_again,
    ),
    *(redis_clock_is_set, a_hosts_clock_is_set, to_a_reconciler, a_reconciler_stands_still),
    *(
        a_person_changes_the_command,
        a_person_changes_the_image,
        a_person_changes_the_image_again_and_again,
        another_package_is_applied,
        what_cannot_work_meets_a_machine_that_hangs,
        a_person_rolls_out_again_and_again,
        a_person_scales,
        a_person_pauses,
        a_person_drains,
        a_person_resumes,
    ),
    *(a_person_restarts, a_person_closes_the_breaker, jobs_come),
)
