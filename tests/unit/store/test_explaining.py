"""Who could serve a lane, from a look that is given."""

from __future__ import annotations

from emp_orch.jobs.matching.explain import Candidate
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.explain import LaneWorkers, Workers, serving, verdict
from emp_orch.store.queue.reads import LaneView


def lane(name: str, **asked: object) -> LaneView:
    return LaneView(lane=name, requirements=Requirements(**asked), depth=1, oldest_ms=0, head="j")  # type: ignore[arg-type]


def test_workers_are_counted_for_each_lane_by_what_they_do() -> None:
    def worker(n: int, *services: str, **more: object) -> Candidate:
        fields = {"status": "idle", **more}
        return Candidate(worker_id=f"w{n}", reported={"services": list(services), "gpu": n}, **fields)  # type: ignore[arg-type]

    look = Workers(
        candidates=(
            worker(0, "a"),
            worker(1, "a", "b"),
            worker(2, "a", status="busy", current_job_id="j"),
            worker(3, "a", "b", status="offline"),
            worker(4, "a", "b", connectors={"a": "error", "b": "idle"}),
            Candidate(worker_id="w5", known={"services": ["a"]}),
            Candidate(worker_id="w6"),
        )
    )
    lanes = [lane("1", service="a"), lane("2", service="b"), lane("3", service="a", models=("flux",))]
    assert serving(lanes, look) == {
        "1": LaneWorkers(able=5, idle=2, busy=1, down=2, silent=1),
        "2": LaneWorkers(able=3, idle=2, down=1),
        "3": LaneWorkers(),
    }
    assert serving([], look) == {}
    assert verdict(Requirements(service="a"), look) == ""
