"""Any mix of machines, programs, workers and reports, as Hypothesis draws it; and faults that come and go."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import MachineId, ProgramName, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import (
    MachineReport,
    MachineStatus,
    ProgramState,
    WorkerReport,
)
from support.fleet.fleets import COMFYUI, SETUP, SIMULATION, fleet, machine, wish, worker
from support.fleet.world import Host, Program, World, fresh_host

SERVICES = (SIMULATION, COMFYUI, SETUP)

START_MS = 1_000_000_000

LONG_MS = 3_600_000


def desired_of(machine_id: str, num_gpus: int, names: tuple[str, ...]) -> DesiredMachine:
    m = machine(machine_id, services=names, num_gpus=num_gpus)
    return desired_machine(fleet(SERVICES, m), m)


NAMES = st.lists(st.sampled_from(["simulation", "comfyui", "prepare"]), unique=True, max_size=3).map(tuple)

MACHINES = st.builds(lambda n, names: (n, names), st.integers(0, 3), NAMES)


@dataclass
class Case:
    desired: Desired
    world: World


@st.composite
def hosts(draw: st.DrawFn, wanted: DesiredMachine) -> Host | None:
    """Any life of a machine: none, young, old, of another configuration, its programs in any state."""
    if draw(st.booleans()):
        config, generation = wanted, draw(st.sampled_from([1, 2]))
    else:
        config, generation = desired_of(wanted.id, *draw(MACHINES)), 1
    host = fresh_host(config, generation, START_MS - draw(st.sampled_from([0, 5_000, LONG_MS])))
    host.status = draw(st.sampled_from([MachineStatus.STARTING, MachineStatus.CONFIGURING, MachineStatus.READY]))
    for program in host.programs.values():
        program.state = draw(st.sampled_from(ProgramState))
        program.exit_status = draw(st.sampled_from([0, 1])) if program.state is ProgramState.EXITED else None
        started = program.state is not ProgramState.STOPPED or draw(st.booleans())
        program.since_ms = START_MS - draw(st.sampled_from([1_000, LONG_MS])) if started else 0
        program.healthy = draw(st.sampled_from([None, True, False])) if program.state is ProgramState.RUNNING else None
    for name in draw(st.sets(st.sampled_from(sorted(host.programs)), max_size=2)):
        del host.programs[name]
    if draw(st.booleans()):
        name = ProgramName("left-over")
        template = wanted.programs[0]
        host.programs[name] = Program(want=template, state=draw(st.sampled_from(ProgramState)))
    if host.status is MachineStatus.READY:
        host.begun, host.was_ready = None, True
    else:
        # The sequence has begun what ever ran, at least.
        host.begun = {p.want.name for p in host.programs.values() if p.since_ms and p.want in config.programs}
    host.hung = draw(st.sampled_from([False, False, True]))
    host.strayed = set(draw(st.lists(st.sampled_from(sorted(config.workers) or [WorkerId("none")]), max_size=1)))
    return host


def agents_report(draw: st.DrawFn, world: World, machine_id: MachineId, host: Host | None, m: DesiredMachine) -> None:
    """What Redis holds of a machine: nothing, the truth, something damaged, or an earlier life's words."""
    seen_ms = START_MS - draw(st.sampled_from([0, 3_000, LONG_MS]))
    what = draw(st.sampled_from(["nothing", "truth", "damaged", "earlier life"]))
    report: MachineReport | None = None
    if what == "truth" and host is not None:
        report = host.report()
    elif what == "earlier life":
        earlier = fresh_host(m, 2, START_MS - 2 * LONG_MS)
        earlier.status = draw(st.sampled_from(MachineStatus))
        report = earlier.report()
    elif what != "damaged":
        return
    world.documents[machine_id] = (report, seen_ms)


def workers_report(draw: st.DrawFn, world: World, machine_id: MachineId) -> None:
    for slot in range(draw(st.integers(0, 3))):
        wid = worker_id(machine_id, slot)
        says = draw(st.sampled_from([machine_id, MachineId("elsewhere"), None]))
        world.workers[wid] = (
            None if says is None else ghost(wid, says, slot),
            START_MS - draw(st.sampled_from([0, LONG_MS])),
        )


def ghost(wid: WorkerId, machine_id: MachineId, slot: int) -> WorkerReport:
    return worker(desired_of(machine_id, slot + 1, ()), slot, worker_id=wid).report


@st.composite
def cases(draw: st.DrawFn) -> Case:
    wanted = [desired_of(f"m{n}", *draw(MACHINES)) for n in range(draw(st.integers(1, 3)))]
    surplus = [desired_of(f"s{n}", *draw(MACHINES)) for n in range(draw(st.integers(0, 1)))]
    world = World(now_ms=START_MS, observing_since_ms=START_MS - draw(st.sampled_from([0, LONG_MS])))
    for m in (*wanted, *surplus):
        host = draw(st.one_of(st.none(), hosts(m)))
        if host is not None:
            world.hosts[m.id] = host
        if host is not None or draw(st.booleans()):
            world.known.add(m.id)
        agents_report(draw, world, m.id, host, m)
        workers_report(draw, world, m.id)
    desired = wish(*wanted, generation=2, max_unavailable=draw(st.integers(1, 2)), prune=draw(st.booleans()))
    return Case(desired=desired, world=world)


FAULTS = ("redis away", "blind", "hung", "unstartable", "commands lost", "crashing", "sick", "killed", "redis emptied")


def strike(world: World, fault: str, machine_id: MachineId) -> None:
    host = world.hosts.get(machine_id)
    match fault:
        case "redis away":
            world.redis_away = True
        case "redis emptied":
            world.documents.clear()
            world.workers.clear()
        case "blind":
            world.blind.add(machine_id)
        case "unstartable":
            world.unstartable.add(machine_id)
        case "commands lost":
            world.lost_commands = True
        case "killed":
            world.stop(machine_id, in_order=False)
        case "hung" if host is not None:
            host.hung = True
        case "crashing" | "sick" if host is not None:
            for program in host.programs.values():
                program.crashes, program.sick = fault == "crashing", fault == "sick"
        case _:
            pass


def heal(world: World) -> None:
    """All faults stop. A machine that hangs may hang on: that is for the reconciler to mend."""
    world.redis_away = world.lost_commands = False
    world.blind.clear()
    world.unstartable.clear()
    for host in world.hosts.values():
        for program in host.programs.values():
            program.crashes = program.sick = False


STEADY = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
