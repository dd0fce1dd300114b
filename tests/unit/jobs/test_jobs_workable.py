from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_orch.jobs.matching import workable
from emp_orch.jobs.matching.requirements import Hardware, Requirements, unmet
from emp_orch.jobs.matching.workable import DesiredWorker, Possible, Unworkable, Workable, judge, judge_all

FILE: dict[str, Any] = {"services": ["simulation"], "gpu": 0}


def worker(name: str, reported: dict[str, Any] | None = None, **known: Any) -> DesiredWorker:
    return DesiredWorker(worker_id=name, known={**FILE, **known}, reported=reported)


def reports(name: str, **capabilities: Any) -> DesiredWorker:
    return worker(name, {**FILE, **capabilities})


SIMULATION = Requirements(service="simulation")
BIG = Requirements(service="simulation", hardware=Hardware(gpu_memory_gb=48))


@pytest.mark.parametrize(
    ("requirements", "workers", "expected"),
    [
        (SIMULATION, [], Unworkable(reason="the fleet has no workers")),
        (SIMULATION, [worker("b"), reports("a"), reports("c")], Workable(able=("a", "c"))),
        # Only the worker knows its hardware: it may have enough until it says otherwise.
        (BIG, [worker("a"), worker("b")], Possible(ids=("a", "b"))),
        (BIG, [reports("a", hardware={"gpu_memory_gb": 80}), worker("b")], Workable(able=("a",))),
        (BIG, [reports("a", hardware={"gpu_memory_gb": 24}), worker("b")], Possible(ids=("b",))),
        # What the file says of hardware is the worker's word too.
        (
            BIG,
            [worker("a", hardware={"gpu_memory_gb": 24})],
            Unworkable(
                reason="no worker of the fleet could run it: a: (not reporting yet) "
                "hardware.gpu_memory_gb: at least 48 is needed, the worker has 24"
            ),
        ),
        (BIG, [worker("a", hardware={"ram_gb": 24})], Possible(ids=("a",))),
        # A report counts before the file: here a connector did not load.
        (
            SIMULATION,
            [worker("a", {"services": []})],
            Unworkable(
                reason="no worker of the fleet could run it: "
                "a: service 'simulation' is needed, the worker offers nothing"
            ),
        ),
        (
            SIMULATION,
            [msgspec.structs.replace(worker("a", {"services": []}), unloaded={"simulation": "path is missing"})],
            Unworkable(
                reason="no worker of the fleet could run it: "
                "a: service 'simulation' is needed, the worker cannot use it: path is missing"
            ),
        ),
        (
            Requirements(service="video"),
            [*(reports(f"w{i}") for i in range(8)), reports("x", services=["comfyui"]), worker("y")],
            Unworkable(
                reason="no worker of the fleet could run it: "
                "8 workers: service 'video' is needed, the worker offers simulation · "
                "y: (not reporting yet) service 'video' is needed, the worker offers simulation · "
                "x: service 'video' is needed, the worker offers comfyui"
            ),
        ),
        (
            Requirements(service="simulation", workflow="w"),
            [reports("a", workflows=["v"]), reports("b", workflows=["v"])],
            Unworkable(
                reason="no worker of the fleet could run it: "
                "a and b: workflow 'w' is needed, the worker is pinned to ['v']"
            ),
        ),
        (
            Requirements(service="simulation", positive={"region": "eu"}, negative={"spot": True}),
            [reports("a", region="eu", spot=True), reports("b", region="us"), worker("c", region="eu")],
            Possible(ids=("c",)),
        ),
    ],
)
def test_the_verdict(requirements: Requirements, workers: list[DesiredWorker], expected: object) -> None:
    assert judge(requirements, workers) == expected


def test_a_reason_stays_short_and_counts_the_rest() -> None:
    workers = [reports(f"machine-{i}-worker-0", services=[f"{i:03}" + "x" * 200]) for i in range(100)]
    verdict = judge(SIMULATION, workers)
    assert isinstance(verdict, Unworkable)
    assert len(verdict.reason) <= workable.MAX_REASON
    shown = verdict.reason.count("service 'simulation' is needed")
    assert shown >= 2
    assert verdict.reason.endswith(f" · and {100 - shown} workers for other reasons")


def test_a_reason_is_the_same_in_any_order() -> None:
    workers = [reports(f"w{i}", services=[str(i % 3)]) for i in range(30)]
    assert judge(SIMULATION, workers) == judge(SIMULATION, workers[::-1])


def test_equal_workers_are_looked_at_once_for_each_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counting(*args: Any, **more: Any) -> tuple[str, ...]:
        nonlocal asked
        asked += 1
        return unmet(*args, **more)

    monkeypatch.setattr(workable, "unmet", counting)
    # 8,000 workers that differ in their slot, which nobody asks for, and are of four kinds otherwise.
    workers = [reports(f"w{i}", gpu=i % 8, hardware={"gpu_memory_gb": 8 * (i % 4)}) for i in range(8_000)]
    lanes = {str(i): Requirements(service="simulation", hardware=Hardware(gpu_memory_gb=i % 32)) for i in range(1_000)}
    verdicts = judge_all(lanes, workers)
    assert asked == 4 * 1_000
    assert verdicts["17"] == Workable(able=tuple(f"w{i}" for i in range(8_000) if i % 4 == 3))
    assert isinstance(verdicts["25"], Unworkable)
    assert set(verdicts) == set(lanes)


def test_a_slot_that_a_lane_asks_for_counts() -> None:
    lanes = {"any": SIMULATION, "slot 1": Requirements(service="simulation", positive={"gpu": 1})}
    workers = [reports("a", gpu=0), reports("b", gpu=1)]
    assert judge_all(lanes, workers) == {"any": Workable(able=("a", "b")), "slot 1": Workable(able=("b",))}
