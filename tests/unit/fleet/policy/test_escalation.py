"""What becomes of a program tried in vain: its machine is restarted, or it is left to a person. States to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    Observed,
    ProgramState,
    WorkerStatus,
)
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.memory import Attempt, Memory
from emp_orch.fleet.round import Inputs, Round, decide
from support.fleet.fleets import COMFYUI, NOW_MS, SIMULATION, look, one, report, service, wish, worker

EXPORTER = service("exporter")
# Two slots, each with a service of its own, one service for both, and a helper that no worker needs.
M = one([SIMULATION, COMFYUI, EXPORTER], num_gpus=2, machine_id="m")
ALONE = one([COMFYUI], num_gpus=2, machine_id="m")
OF_SLOT_0 = ProgramName("comfyui-gpu0")

FATAL = {"state": ProgramState.FATAL, "pid": 0, "healthy": None}
HANGS = {"healthy": False, "detail": "it did not answer within 5 s"}
STOPPED = {"state": ProgramState.STOPPED, "pid": 0, "healthy": None}


def answering(*services: str, error: tuple[str, ...] = ()) -> dict[str, ConnectorReport]:
    idle = {name: ConnectorReport(status=ConnectorStatus.IDLE) for name in services}
    return idle | {name: ConnectorReport(status=ConnectorStatus.ERROR, detail="gone") for name in error}


def seen(
    m: DesiredMachine, troubles: Mapping[str, Mapping[str, Any]], workers: Mapping[int, Mapping[str, Any]]
) -> Observed:
    programs = dict(report(m).report.programs)
    for name, changes in troubles.items():
        programs[ProgramName(name)] = structs.replace(programs[ProgramName(name)], **changes)
    said = {worker_id(m.id, slot): worker(m, slot, **fields) for slot, fields in workers.items()}
    return look(m, machines={m.id: report(m, programs=programs)}, workers=said)


def used_up(*keys: str, count: int = 5) -> Memory:
    times = tuple(NOW_MS - 120_000 * (count - n) for n in range(count))
    return Memory(attempts={key: Attempt(count=count, last_ms=times[-1], times_ms=times) for key in keys})


def told(done: Round) -> list[str]:
    return [f"run {o.key}" for o in done.decision.run] + [f"{h.operation.key}: {h.why}" for h in done.decision.held]


BUSY = {"status": WorkerStatus.BUSY, "current_job_id": "j1", "connector_statuses": answering("comfyui")}
ABLE = {"connector_statuses": answering("comfyui")}
DOWN = {"connector_statuses": answering(error=("comfyui",))}
HELPED = {"connector_statuses": answering("simulation", error=("comfyui",))}
RESTARTS = ["run restart-machine/m"]


def left(key: str, why: str, *, program: str) -> list[str]:
    return [f"{key}: needs a person: 5 tries in 30 min did not help, and {why}; `emp restart m {program}` tries again"]


AT_ONCE = "it ends at once each time, which a restart of the machine does not change"
START_0, AGAIN_0 = "start-program/m/comfyui-gpu0", "restart-program/m/comfyui-gpu0"


@pytest.mark.parametrize(
    ("m", "troubles", "workers", "key", "says"),
    [
        pytest.param(
            *(ALONE, {OF_SLOT_0: FATAL}, {0: DOWN, 1: BUSY}, START_0),
            left(START_0, AT_ONCE, program="comfyui-gpu0"),
            id="one slot cannot start, the other is at a job",
        ),
        pytest.param(
            *(ALONE, {OF_SLOT_0: FATAL, "comfyui-gpu1": FATAL}, {0: DOWN, 1: DOWN}, START_0),
            [*left(START_0, AT_ONCE, program="comfyui-gpu0"), "run start-program/m/comfyui-gpu1"],
            id="none can start: a restart of the machine does not help",
        ),
        pytest.param(
            *(ALONE, {OF_SLOT_0: HANGS}, {0: DOWN, 1: BUSY}, AGAIN_0),
            left(AGAIN_0, "the machine is not restarted while slot 1 of it works", program="comfyui-gpu0"),
            id="one slot hangs, the other is at a job",
        ),
        pytest.param(
            *(ALONE, {OF_SLOT_0: HANGS}, {0: DOWN, 1: ABLE}, AGAIN_0),
            left(AGAIN_0, "the machine is not restarted while slot 1 of it works", program="comfyui-gpu0"),
            id="one slot hangs, the other could take a job",
        ),
        pytest.param(
            *(ALONE, {OF_SLOT_0: HANGS}, {0: DOWN, 1: DOWN}, AGAIN_0, RESTARTS),
            id="one hangs, the other does not work either",
        ),
        pytest.param(
            *(ALONE, {OF_SLOT_0: HANGS}, {0: DOWN, 1: {**ABLE, "seen_ms": NOW_MS - 60_000}}, AGAIN_0),
            [*RESTARTS, "run restart-program/m/redis-worker-gpu1"],
            id="what a silent worker said counts no more",
        ),
        pytest.param(
            *(M, {OF_SLOT_0: HANGS, "comfyui-gpu1": HANGS}, {0: HELPED, 1: HELPED}, AGAIN_0),
            [
                *left(AGAIN_0, "the machine is not restarted while slots 0, 1 of it work", program="comfyui-gpu0"),
                "run restart-program/m/comfyui-gpu1",
            ],
            id="both hang, and take jobs for another service",
        ),
        pytest.param(
            *(M, {"exporter": FATAL}, {0: BUSY, 1: ABLE}, "start-program/m/exporter"),
            left("start-program/m/exporter", AT_ONCE, program="exporter"),
            id="a helper cannot start",
        ),
        pytest.param(
            *(M, {"exporter": HANGS}, {0: BUSY, 1: ABLE}, "restart-program/m/exporter"),
            left(
                "restart-program/m/exporter",
                "the machine is not restarted while slots 0, 1 of it work",
                program="exporter",
            ),
            id="a helper hangs, and the slots work without it",
        ),
        pytest.param(
            *(M, {"exporter": STOPPED}, {0: BUSY, 1: DOWN}, "start-program/m/exporter"),
            left(
                "start-program/m/exporter", "the machine is not restarted while slot 0 of it works", program="exporter"
            ),
            id="a helper ends again and again",
        ),
        pytest.param(
            *(ALONE, {"shared-setup": {"exit_status": 1}}, {0: DOWN, 1: DOWN}, "start-program/m/shared-setup"),
            left(
                "start-program/m/shared-setup",
                "a restart of the machine runs the same step again",
                program="shared-setup",
            ),
            id="a set-up step fails",
        ),
    ],
)
def test_a_slots_trouble_stays_its_own(
    m: DesiredMachine,
    troubles: dict[str, dict[str, Any]],
    workers: dict[int, dict[str, Any]],
    key: str,
    says: list[str],
) -> None:
    done = decide(Inputs(desired=wish(m), observed=seen(m, troubles, workers), memory=used_up(key)))
    assert sorted(told(done)) == sorted(says)


def test_a_worker_that_hangs_is_its_slots_trouble_too() -> None:
    observed = seen(ALONE, {}, {0: {"seen_ms": NOW_MS - 60_000}, 1: BUSY})
    key = "restart-program/m/redis-worker-gpu0"
    done = decide(Inputs(desired=wish(ALONE), observed=observed, memory=used_up(key)))
    why = "the machine is not restarted while slot 1 of it works"
    assert told(done) == left(key, why, program="redis-worker-gpu0")


def test_a_person_sets_a_slot_free_and_a_slot_that_comes_back_frees_itself() -> None:
    desired, broken = wish(ALONE), seen(ALONE, {OF_SLOT_0: FATAL}, {0: DOWN, 1: BUSY})
    left_alone = decide(Inputs(desired=desired, observed=broken, memory=used_up(START_0)))
    assert left_alone.items[0].hold is Hold.QUARANTINE
    asked = Operation(
        verb=Verb.RESTART_PROGRAM, machine_id=ALONE.id, program=OF_SLOT_0, cause="asked by cli", origin=""
    )
    freed = decide(Inputs(desired=desired, observed=broken, memory=left_alone.memory, asked=(asked,)))
    assert freed.decision.run[0].key == AGAIN_0 and freed.memory.quarantined == {}
    well = decide(Inputs(desired=desired, observed=look(ALONE), memory=left_alone.memory))
    assert well.memory.quarantined == {} and [t for t, _ in well.entries if t == "released"]


@pytest.mark.parametrize("times", [1, 6])
def test_what_a_person_asks_for_is_never_counted(times: int) -> None:
    desired, broken = wish(ALONE), seen(ALONE, {OF_SLOT_0: HANGS}, {0: DOWN, 1: DOWN})
    asked = Operation(
        verb=Verb.RESTART_PROGRAM, machine_id=ALONE.id, program=OF_SLOT_0, cause="asked by cli", origin=""
    )
    memory = Memory()
    for _ in range(times):
        done = decide(Inputs(desired=desired, observed=broken, memory=memory, asked=(asked,)))
        assert [o.key for o in done.decision.run] == [AGAIN_0]
        memory = done.memory
    assert memory.attempts[AGAIN_0].times_ms == ()


LATE = {"healthy": False, "never_healthy": True, "detail": "connection refused"}


@pytest.mark.parametrize(
    ("tries", "says"),
    [
        (0, ["run restart-program/m/comfyui-gpu0"]),
        (
            1,
            [
                "restart-program/m/comfyui-gpu0: needs a person: it was restarted and again did not come up within"
                " 60 s: raise health.startup if it needs longer; `emp restart m comfyui-gpu0` tries again"
            ],
        ),
    ],
)
def test_a_start_up_that_outlasts_its_time_is_begun_anew_once(tries: int, says: list[str]) -> None:
    memory = used_up(AGAIN_0, count=tries) if tries else Memory()
    observed = seen(ALONE, {OF_SLOT_0: LATE}, {0: DOWN, 1: BUSY})
    done = decide(Inputs(desired=wish(ALONE), observed=observed, memory=memory))
    assert told(done) == says


def _just_restarted(began_ms: int, *, ended: bool) -> Memory:
    """One restart of slot 0's service, by the one try that its budget has."""
    began = NOW_MS - began_ms
    attempt = Attempt(count=1, last_ms=began, times_ms=(began,), in_flight_since_ms=None if ended else began)
    return Memory(attempts={AGAIN_0: attempt})


@pytest.mark.parametrize(
    ("memory", "trouble"),
    [
        pytest.param(_just_restarted(60, ended=False), HANGS, id="under way"),
        pytest.param(_just_restarted(1_500, ended=True), HANGS, id="done, and not reported yet"),
        pytest.param(_just_restarted(9_000, ended=True), STOPPED, id="seen between its stop and its start"),
    ],
)
def test_a_try_that_may_still_help_was_not_in_vain(memory: Memory, trouble: Mapping[str, Any]) -> None:
    desired = wish(ALONE)
    desired = structs.replace(desired, limits=structs.replace(desired.limits, program_budget=1))
    observed = seen(ALONE, {OF_SLOT_0: trouble}, {0: DOWN, 1: DOWN})
    done = decide(Inputs(desired=desired, observed=observed, memory=memory))
    assert done.memory.quarantined == {} and [o.key for o in done.decision.run] == []


def test_what_stays_stopped_after_a_restart_is_started() -> None:
    desired, observed = wish(ALONE), seen(ALONE, {OF_SLOT_0: STOPPED}, {0: DOWN, 1: DOWN})
    before = decide(Inputs(desired=desired, observed=observed, memory=_just_restarted(9_000, ended=True)))
    later = structs.replace(observed, now_ms=NOW_MS + 2_000)
    done = decide(Inputs(desired=desired, observed=later, memory=before.memory))
    assert [o.key for o in done.decision.run] == [START_0]
