"""Every kind of drift on a real fleet: caused, told by `emp diff --json` with its line, healed, whole in the journal.

The reconciler is paused while something is broken, so that the difference is surely seen; resumed, it heals it. What
only passes is looked for in the journal. The scenes follow each other on one fleet, and each leaves it whole.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from emp_orch.fleet.drift.kinds import Kind
from support.stack.drift import KEYS, Lab, Sight

Step = Callable[[Lab], object]


def nothing(lab: Lab) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """`cause` breaks something, `again` keeps it so while it is looked for, `mend` takes the cause away while emp is
    still paused, `then` is done once it goes on: what a person does where emp does nothing, or more to see.

    `passing`: what is in the journal only. `paused` False: emp has to work for this to be seen.
    """

    name: str
    sees: tuple[Sight, ...]
    cause: Step
    again: Step = nothing
    mend: Step = nothing
    then: Step = nothing
    passing: tuple[Sight, ...] = ()
    paused: bool = True


# -- programs


def stop_two(lab: Lab) -> None:
    for name in ("second", "first"):
        lab.call("box", "stopProcess", name, True)


def slow_start(lab: Lab) -> None:
    lab.steer("third", "deaf")
    lab.kill("box", "third")


def crash_two(lab: Lab) -> None:
    lab.steer("third", "crash")
    lab.steer("fourth", "crash-later")


def crash_no_more(lab: Lab) -> None:
    lab.steer("third", "well")
    lab.steer("fourth", "well")


def take_port(lab: Lab) -> None:
    lab.steer("second", "deaf")
    lab.take_port("second")


def give_port_back(lab: Lab) -> None:
    lab.give_port_back()
    lab.steer("second", "well")


def change_programs(lab: Lab) -> None:
    """Somebody works on supervisord behind emp's back."""
    lab.call("box", "stopProcess", "fourth", True)
    lab.call("box", "removeProcessGroup", "fourth")
    conf = lab.stack.layout.machine("patient") / "supervisord.conf"
    conf.write_text(conf.read_text() + "\n[program:stranger]\ncommand=sleep 100000\n")
    lab.call("patient", "reloadConfig")
    lab.call("patient", "addProcessGroup", "stranger")


PROGRAMS = (
    Scene(
        name="programs changed",
        sees=(
            Sight("program-missing/box/fourth", "fourth:", "send-configuration/box"),
            Sight("program-surplus/patient/stranger", "patient:", "send-configuration/patient"),
        ),
        cause=change_programs,
    ),
    Scene(
        name="programs stopped",
        sees=(
            Sight("program-stopped/box/first", "first:", "start-program/box/first"),
            Sight("program-waiting/box/second", "second:"),
        ),
        cause=stop_two,
        passing=(Sight("program-stopped/box/second", "second:", "start-program/box/second"),),
    ),
    Scene(
        name="a program slow to start",
        sees=(Sight("program-starting/box/third", "third:"),),
        cause=slow_start,
        mend=lambda lab: lab.steer("third", "well"),
    ),
    Scene(
        name="a program sick until it is another process",
        sees=(Sight("program-unhealthy/box/first", "first:", "restart-program/box/first"),),
        cause=lambda lab: lab.steer("first", "sick"),
        mend=lambda lab: lab.steer("first", "well"),
    ),
    Scene(
        name="programs that crash",
        sees=(
            Sight("program-fatal/box/third", "third:", "start-program/box/third"),
            Sight("program-flapping/box/fourth", "fourth:", "stop-program/box/fourth"),
        ),
        cause=crash_two,
        mend=crash_no_more,
        passing=(Sight("program-stopped/box/fourth", "fourth:", "start-program/box/fourth"),),
    ),
    Scene(
        name="a port taken",
        sees=(Sight("program-port-taken/box/second", "second:"),),
        cause=take_port,
        mend=give_port_back,
    ),
)


# -- machines

BEGINS = Sight("machine-starting/box/box", "box:")


def another_tier(lab: Lab) -> None:
    lab.edit(("tier: gold", "tier: silver"))
    lab.apply()


def two_down(lab: Lab) -> None:
    lab.steer("first", "deaf")
    lab.kill("box", "supervisord")
    lab.kill("spare", "agent", signal.SIGSTOP)


def be_held_up(lab: Lab) -> None:
    lab.until_seen([BEGINS], nothing)
    lab.steer("first", "well")


MACHINES = (
    Scene(
        name="a new generation",
        sees=(
            Sight("config-behind/slots/slots", "slots:", "send-configuration/slots"),
            Sight("generation-behind/box/box", "box:", "send-configuration/box"),
        ),
        cause=another_tier,
    ),
    Scene(
        name="machines down",
        sees=(
            Sight("machine-missing/box/box", "box:", "start-machine/box"),
            Sight("machine-stale/spare/spare", "spare:", "restart-machine/spare"),
        ),
        cause=two_down,
        then=be_held_up,
        passing=(Sight("machine-booting/box/box", "box:"), BEGINS),
    ),
    Scene(
        name="a machine with another Redis",
        sees=(Sight("machine-wrong-redis/spare/spare", "spare:", "restart-machine/spare"),),
        cause=lambda lab: lab.start_by_hand("spare", lab.stack.redis_url.replace("127.0.0.1", "localhost")),
    ),
    Scene(
        name="a part of the control plane stopped",
        sees=(Sight("control-down/control/monitor", "", "start-part/control/monitor"),),
        cause=lambda lab: lab.call_control("stopProcess", "monitor", True),
    ),
    Scene(
        name="a key in Redis that is not emp's",
        sees=(Sight(f"redis-damaged/control/{KEYS.assets_moving}", ""),),
        cause=lambda lab: lab.redis.lpush(KEYS.assets_moving, "a stranger's"),
        mend=lambda lab: lab.redis.delete(KEYS.assets_moving),
    ),
)


# -- workers


def hang_all(lab: Lab) -> None:
    for slot in range(5):
        lab.kill("slots", f"redis-worker-gpu{slot}", signal.SIGSTOP)
    lab.withdraw("worker", "slots-worker-1")


def say_wrong_things(lab: Lab) -> None:
    capabilities = lab.document("worker", "slots-worker-3")["capabilities"]
    lab.forge("worker", "slots-worker-2", package="emp-orch 0.0.0")
    lab.forge("worker", "slots-worker-3", capabilities={**capabilities, "tier": "tin"})
    lab.forge("worker", "slots-worker-4", machine_id="box")


ODD = (
    Sight("worker-stale/slots/slots-worker-0", "slots:", "restart-program/slots/redis-worker-gpu0"),
    Sight("worker-missing/slots/slots-worker-1", "slots:", "restart-program/slots/redis-worker-gpu1"),
    Sight("worker-outdated/slots/slots-worker-2", "slots:", "restart-program/slots/redis-worker-gpu2"),
    Sight("worker-wrong-capabilities/slots/slots-worker-3", "slots:", "restart-program/slots/redis-worker-gpu3"),
    Sight("worker-wrong-machine/slots/slots-worker-4", "slots:", "restart-program/slots/redis-worker-gpu4"),
)


def wake_to_be_restarted(lab: Lab) -> None:
    """A hanging worker is killed after a while, one after the other: here they go on, and find that they must end."""
    lab.until_begun(ODD, "0-0")
    lab.wake()


def lose_the_store(lab: Lab) -> None:
    folder = lab.stack.layout.artifacts
    if folder.exists():
        folder.rename(folder.with_name("artifacts.aside"))
    folder.write_text("no folder")
    lab.kill("box", "redis-worker-gpu0")


def find_the_store(lab: Lab) -> None:
    folder = lab.stack.layout.artifacts
    folder.unlink()
    aside = folder.with_name("artifacts.aside")
    if aside.exists():
        aside.rename(folder)


WORKERS = (
    Scene(
        name="a worker that cannot save what jobs make",
        sees=(Sight("store-broken/box/box-worker-0", "box:"),),
        cause=lose_the_store,
        mend=find_the_store,
    ),
    Scene(
        name="a worker that is slow to start",
        sees=(Sight("worker-starting/box/box-worker-0", "box:"),),
        cause=lambda lab: lab.kill_and_stop_the_next("box", "redis-worker-gpu0"),
        mend=Lab.wake,
    ),
    Scene(
        name="workers that are not what they should be",
        sees=ODD,
        cause=hang_all,
        then=wake_to_be_restarted,
        again=say_wrong_things,
    ),
)


# -- strangers' words


def be_another_agent(lab: Lab) -> None:
    lab.forge("machine", "box", boot_id="1-1", host="elsewhere")


def say_strange_things(lab: Lab) -> None:
    lab.report("worker", "box-worker-0", "{")
    lab.forge("worker", "box-worker-9", like="slots-worker-0", worker_id="box-worker-9", machine_id="box", gpu=9)
    lab.forge("machine", "stray", like="spare", machine_id="stray")
    lab.forge("machine", "slots", gpu_error="GPU 0 has fallen off the bus", disk_error="no space left on /logs")
    lab.forge("machine", "spare", forged="once; the last: a command bears no seal")


STRANGERS = (
    Scene(
        name="strangers report",
        sees=(
            Sight("report-malformed/box/box-worker-0", ""),
            Sight("worker-surplus/box/box-worker-9", "", "forget-worker/box/box-worker-9"),
            Sight("machine-foreign/stray/stray", ""),
            Sight("machine-conflict/box/box", "box:"),
            Sight("gpu-lost/slots/slots", "slots:"),
            Sight("orders-forged/spare/spare", "spare:"),
            Sight("disk-full/slots/slots", "slots:"),
        ),
        cause=be_another_agent,
        again=say_strange_things,
        then=lambda lab: lab.forget("stray"),
    ),
)


# -- an emp.yaml that does not fit the world

WRONG = (("num_gpus: 5\n", "num_gpus: 5\n    gpus: nvidia\n"), ("connector: none", "connector: nosuch"))


def apply_wrong_things(lab: Lab) -> None:
    lab.edit(*WRONG)
    lab.apply()
    lab.apply_as_another_emp("far", like="spare", runtime="compose", host="nowhere")
    lab.apply_as_another_emp("off", like="spare", runtime="external")


def apply_right_things(lab: Lab) -> None:
    lab.edit(*((new, old) for old, new in WRONG))
    lab.apply()


def drop_spare(lab: Lab) -> None:
    lab.edit(("  spare:\n    num_gpus: 0\n    services: []\n", ""))
    lab.apply()


LAST = (
    Scene(
        name="an emp.yaml that does not fit the world",
        sees=(
            Sight("connector-broken/box/box-worker-0 third", "third:"),
            Sight("machine-unreachable/far/far", "spare:"),
            Sight("machine-away/off/off", "spare:"),
            Sight("gpu-missing/slots/slots", "slots:"),
        ),
        cause=apply_wrong_things,
        then=apply_right_things,
        paused=False,
    ),
    Scene(
        name="a machine that is not in emp.yaml any more",
        sees=(Sight("machine-surplus/spare/spare", "", "remove-machine/spare"),),
        cause=drop_spare,
        mend=lambda lab: lab.apply("--prune"),
    ),
)

# A configuration that is sent is a new beginning for what is given a minute: these come before and after that.
FIRST = (*MACHINES[:1], *PROGRAMS[:1])
DURING = (*PROGRAMS[1:], *MACHINES[1:], *WORKERS, *STRANGERS)
PATIENCE = Sight("connector-unhealthy/patient/patient-worker-0 slow", "slow:", "restart-program/patient/slow")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("kinds"))
    try:
        lab.stack.up()
        yield lab
    finally:
        lab.close()
        left = lab.stack.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


@pytest.mark.parametrize("scene", FIRST, ids=lambda s: s.name)
def test_a_drift_of_configurations_is_caused_told_and_healed(lab: Lab, scene: Scene) -> None:
    play(lab, scene)


def test_a_service_whose_connector_complains_is_given_a_minute(lab: Lab) -> None:
    lab.steer("slow", "sick")
    lab.until_seen([PATIENCE], nothing)
    lab.steer("slow", "well")  # the process that is there stays sick


@pytest.mark.parametrize("scene", DURING, ids=lambda s: s.name)
def test_a_drift_is_caused_told_and_healed(lab: Lab, scene: Scene) -> None:
    play(lab, scene, but="patient")


def test_a_service_whose_connector_complains_is_restarted_after_a_minute(lab: Lab) -> None:
    lab.until_healed([PATIENCE], "0-0")
    lab.until_whole()


@pytest.mark.parametrize("scene", LAST, ids=lambda s: s.name)
def test_a_drift_of_the_file_is_caused_told_and_healed(lab: Lab, scene: Scene) -> None:
    play(lab, scene)


def play(lab: Lab, scene: Scene, *, but: str = "") -> None:
    """One scene, to its end: the fleet is whole, but for machine `but`."""
    place = lab.place()
    if scene.paused:
        lab.pause()
    try:
        scene.cause(lab)
        lab.until_seen(scene.sees, scene.again)
        lab.until_told("drift_opened", scene.sees, place)
        begun = {e.data["operation"] for e in lab.journal(place) if e.type == "operation_begun"}
        assert not scene.paused or not begun & {s.operation for s in scene.sees}, "it is paused"
    finally:  # also where it failed: the scenes that follow are about something else
        scene.mend(lab)
        if scene.paused:
            lab.resume()
    scene.then(lab)
    lab.until_healed((*scene.sees, *scene.passing), place)
    lab.until_whole(but=but)


def test_every_kind_is_caused_here() -> None:
    seen = [s.kind for scene in (*FIRST, *DURING, *LAST) for s in (*scene.sees, *scene.passing)]
    # Containers: tests/docker; folders shared: test_comfyui_command; services occupied: test_slots.
    elsewhere = {Kind.CONTAINER_OUTDATED, Kind.SERVICE_SHARED_FOLDERS, Kind.SERVICE_STUCK, Kind.SERVICE_OCCUPIED}
    elsewhere |= {Kind.IMAGE_MOVED, Kind.CONTAINER_PAUSED, Kind.CONTAINER_CUT_OFF, Kind.CONTAINER_LOOPING}
    elsewhere |= {Kind.EMP_OUTDATED, Kind.AGENT_OUTDATED, Kind.SUPERVISORD_OUTDATED}  # test_worker_package
    elsewhere |= {Kind.POOL_SHORT, Kind.POOL_OVER, Kind.MEMBER_GONE}  # tests/integration/control/test_pool_keeper
    elsewhere |= {Kind.MEMBER_SILENT}  # tests/e2e/machines/test_pool_boxes
    assert {*seen, PATIENCE.kind} == {*Kind} - elsewhere
