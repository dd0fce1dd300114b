"""A service that answers nobody may just be busy: its restart is held while a job is on it. States to text."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.drift.kinds import Drift, Kind
from emp_orch.fleet.journal.advice import advice
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, Observed, WorkerStatus
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.memory import Memory, Onset
from emp_orch.fleet.round import Inputs, Round, decide
from support.fleet.fleets import COMFYUI, NOW_MS, SIMULATION, look, one, report, wish, worker

M = one([SIMULATION, COMFYUI], num_gpus=2, machine_id="m")
TIMEOUT_MS = 600_000

ACTIVE = ConnectorReport(status=ConnectorStatus.ACTIVE)
IDLE = ConnectorReport(status=ConnectorStatus.IDLE)
ERROR = ConnectorReport(status=ConnectorStatus.ERROR, detail="it does not answer")
BUSY = {"status": WorkerStatus.BUSY, "current_job_id": "j1"}
AGAIN = "restart-program/m/comfyui-gpu0"


def hanging(name: str, workers: dict[int, dict[str, Any]]) -> Observed:
    programs = report(M).report.programs
    ill = structs.replace(programs[ProgramName(name)], healthy=False, detail="no answer within 5 s")
    said = {worker_id(M.id, slot): worker(M, slot, **workers.get(slot, {})) for slot in range(M.num_gpus)}
    return look(M, machines={M.id: report(M, programs={**programs, ProgramName(name): ill})}, workers=said)


def since(observed: Observed, ms: int) -> Memory:
    """Its trouble has stood for so long."""
    found = decide(Inputs(desired=wish(M), observed=observed, memory=Memory())).items[0].drift
    return Memory(onsets={found.key: Onset(drift=found, since_ms=NOW_MS - ms)})


@pytest.mark.parametrize(
    ("name", "workers", "held"),
    [
        pytest.param(
            *("comfyui-gpu0", {0: {**BUSY, "connector_statuses": {"comfyui": ACTIVE, "simulation": IDLE}}}),
            "m-worker-0 is at job j1 on it",
            id="a job is on it",
        ),
        pytest.param(
            *("comfyui-gpu0", {0: {**BUSY, "connector_statuses": {"comfyui": ERROR, "simulation": IDLE}}}),
            "m-worker-0 is at job j1 on it",
            id="its connector hears nothing either: the job may be on it",
        ),
        pytest.param(
            "comfyui-gpu0",
            {0: {**BUSY, "status": WorkerStatus.DRAINING, "connector_statuses": {"comfyui": ERROR}}},
            "m-worker-0 is at job j1 on it",
            id="a draining worker ends its job there",
        ),
        pytest.param(
            *("simulation", {1: {**BUSY, "connector_statuses": {"comfyui": IDLE, "simulation": ERROR}}}),
            "m-worker-1 is at job j1 on it",
            id="any worker may be at the machine's own service",
        ),
        pytest.param(
            *("comfyui-gpu0", {0: {**BUSY, "connector_statuses": {"comfyui": ERROR, "simulation": ACTIVE}}}, ""),
            id="the job is on another service",
        ),
        pytest.param(
            *("comfyui-gpu0", {1: {**BUSY, "connector_statuses": {"comfyui": ACTIVE}}}, ""),
            id="the job is on another slot",
        ),
        pytest.param("comfyui-gpu0", {0: {"connector_statuses": {"comfyui": IDLE}}}, "", id="no job"),
        pytest.param(
            "comfyui-gpu0",
            {0: {**BUSY, "machine_id": "elsewhere", "connector_statuses": {"comfyui": ACTIVE}}},
            "",
            id="its worker is another machine's",
        ),
    ],
)
def test_a_restart_waits_for_the_job_that_is_on_the_service(
    name: str, workers: dict[int, dict[str, Any]], held: str
) -> None:
    done = decide(Inputs(desired=wish(M), observed=hanging(name, workers), memory=Memory()))
    restart = f"restart-program/m/{name}"
    if held:
        (hold,) = done.decision.held
        assert (hold.operation.key, hold.by, hold.why) == (restart, Hold.BUSY, held)
        assert hold.next_ms == NOW_MS + TIMEOUT_MS and not done.decision.run
        assert advice(done.items[0], ()) == (
            f"wait for its job, or cancel it (`emp cancel JOB`); `emp restart m {name}` does not wait",
        )
    else:
        assert restart in [o.key for o in done.decision.run]


AT_IT: dict[int, dict[str, Any]] = {0: {**BUSY, "connector_statuses": {"comfyui": ERROR}}}


def test_it_waits_no_longer_than_a_job_may_run() -> None:
    observed = hanging("comfyui-gpu0", AT_IT)
    shortly = decide(Inputs(desired=wish(M), observed=observed, memory=since(observed, TIMEOUT_MS - 1)))
    assert shortly.decision.run == ()
    over = decide(Inputs(desired=wish(M), observed=observed, memory=since(observed, TIMEOUT_MS)))
    assert [o.key for o in over.decision.run] == [AGAIN]


def test_a_connector_that_hears_nothing_restarts_no_service_under_a_job() -> None:
    drift = Drift(
        kind=Kind.CONNECTOR_UNHEALTHY,
        machine_id=M.id,
        subject="m-worker-0 comfyui",
        desired="idle or active",
        observed="error",
        cause="it does not answer",
        origin="",
        program=ProgramName("comfyui-gpu0"),
    )
    loaded: dict[str, Any] = {"capabilities": {"services": ["comfyui"]}}
    said = {worker_id(M.id, 0): worker(M, 0, **AT_IT[0], **loaded), worker_id(M.id, 1): worker(M, 1)}
    stands = Memory(onsets={drift.key: Onset(drift=drift, since_ms=NOW_MS - 90_000)})
    done = decide(Inputs(desired=wish(M), observed=look(M, workers=said), memory=stands))
    assert [(h.operation.key, h.by) for h in done.decision.held] == [(AGAIN, Hold.BUSY)]


def test_a_person_does_not_wait() -> None:
    asked = Operation(
        verb=Verb.RESTART_PROGRAM, machine_id=M.id, program=ProgramName("comfyui-gpu0"), cause="asked", origin=""
    )
    observed = hanging("comfyui-gpu0", AT_IT)
    done = decide(Inputs(desired=wish(M), observed=observed, memory=Memory(), asked=(asked,)))
    assert [o.key for o in done.decision.run] == [AGAIN]


def test_when_the_job_has_ended_it_may_answer_again() -> None:
    held = decide(Inputs(desired=wish(M), observed=hanging("comfyui-gpu0", AT_IT), memory=Memory()))
    idle = hanging("comfyui-gpu0", {0: {"connector_statuses": {"comfyui": ERROR}}})

    def after(ms: int) -> Round:
        machines = {i: structs.replace(m, seen_ms=NOW_MS + ms) for i, m in idle.machines.items()}
        workers = {i: structs.replace(w, seen_ms=NOW_MS + ms) for i, w in idle.workers.items()}
        seen = structs.replace(idle, now_ms=NOW_MS + ms, machines=machines, workers=workers)
        return decide(Inputs(desired=wish(M), observed=seen, memory=held.memory))

    assert [h.why for h in after(1_000).decision.held] == ["its job has just ended, and it may answer again"]
    assert AGAIN in [o.key for o in after(12_000).decision.run]
    well = decide(Inputs(desired=wish(M), observed=look(M), memory=held.memory))
    assert well.memory.busy == {}
