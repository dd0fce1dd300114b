from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs.matching.explain import Candidate, Standing, explain, why_waiting
from emp_orch.jobs.matching.requirements import Hardware, Requirements

WANTED = Requirements(service="comfyui", hardware=Hardware(gpu_memory_gb=24))
ABLE: dict[str, Any] = {"services": ["comfyui"], "hardware": {"gpu_memory_gb": 24}}
SMALL: dict[str, Any] = {"services": ["comfyui"], "hardware": {"gpu_memory_gb": 8}}


def able(status: str = "idle", *, connector: str = "idle", detail: str = "", job_id: str | None = None) -> Candidate:
    return Candidate(
        worker_id="w",
        reported=ABLE,
        status=status,
        current_job_id=job_id,
        connectors={"comfyui": connector, "simulation": "error"},
        details={"comfyui": detail, "simulation": "not this one"},
    )


BUSY = able("busy", connector="active", job_id="j7")
DOWN = able(connector="offline", detail="connection refused\nby 127.0.0.1:8188")
UNABLE = Candidate(worker_id="w", reported=SMALL, status="idle")
SILENT = Candidate(worker_id="w", known={"services": ["comfyui"]})


@pytest.mark.parametrize(
    ("worker", "standing", "words"),
    [
        (able(), Standing.IDLE, "could run it; it is idle"),
        (BUSY, Standing.BUSY, "could run it; it is busy with job j7"),
        (able("busy"), Standing.BUSY, "could run it; it is busy"),
        (able("draining", job_id="j7"), Standing.DRAINING, "could run it; it is draining"),
        (able("paused"), Standing.PAUSED, "could run it; it is paused"),
        (able("stopping"), Standing.STOPPING, "could run it; it is stopping"),
        (able("offline", connector="offline"), Standing.OFFLINE, "could run it; it is offline"),
        (able("error"), Standing.ERROR, "could run it; it is in error"),
        (able("initializing"), Standing.STARTING, "could run it; it is starting"),
        (able(connector="starting"), Standing.STARTING, "could run it; it is starting"),
        (
            DOWN,
            Standing.SERVICE_DOWN,
            "could run it; its service comfyui does not answer: connection refused by 127.0.0.1:8188",
        ),
        (
            UNABLE,
            Standing.UNABLE,
            "hardware.gpu_memory_gb: at least 24 is needed, the worker has 8",
        ),
        (SILENT, Standing.SILENT, "may run it; it has not reported yet"),
        (Candidate(worker_id="w"), Standing.SILENT, "may run it; it has not reported yet"),
        (
            Candidate(worker_id="w", known={"services": ["video"]}),
            Standing.UNABLE,
            "service 'comfyui' is needed, the worker offers video",
        ),
        (
            Candidate(worker_id="w", reported={**ABLE, "services": ["video"]}, unloaded={"comfyui": "path is missing"}),
            Standing.UNABLE,
            "service 'comfyui' is needed, the worker cannot use it: path is missing",
        ),
    ],
)
def test_what_stands_between_a_worker_and_a_job(worker: Candidate, standing: Standing, words: str) -> None:
    (found,) = explain(WANTED, [worker])
    assert (found.worker_id, found.standing, found.words) == ("w", standing, words)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], "no worker reports"),
        ([BUSY] * 4, "waits for capacity: 4 workers can run it, all busy"),
        ([BUSY, UNABLE, SILENT], "waits for capacity: 1 worker can run it, busy"),
        ([able("error")] * 2, "waits for capacity: 2 workers can run it, all in error"),
        ([able(), BUSY, DOWN], "waits to be claimed: 3 workers can run it, 1 idle"),
        (
            [DOWN, DOWN, UNABLE],
            "its service comfyui does not answer on 2 workers: connection refused by 127.0.0.1:8188",
        ),
        (
            [able("draining"), DOWN, BUSY, BUSY, able("error")],
            "waits for capacity: 5 workers can run it: 1 draining, 1 in error, 2 busy, "
            "1 whose comfyui does not answer: connection refused by 127.0.0.1:8188",
        ),
        ([SILENT, UNABLE], "waits for 1 worker that may run it and has not reported yet"),
        ([SILENT, SILENT], "waits for 2 workers that may run it and have not reported yet"),
        (
            [UNABLE] * 3,
            "no worker can run it: 3 workers: hardware.gpu_memory_gb: at least 24 is needed, the worker has 8",
        ),
    ],
)
def test_why_a_job_waits(workers: list[Candidate], expected: str) -> None:
    assert why_waiting(explain(WANTED, workers)) == expected
