"""A service that emp restarts under a job: the agent leaves why, the worker says it."""

from __future__ import annotations

import time
from pathlib import Path

from emp_orch.fleet.model.observed import ProgramEnd
from emp_orch.runtimes.process import exit_files
from emp_orch.runtimes.process.exit_files import Asked
from emp_orch.worker.run.service_exits import ServiceEnds

HOUR_MS = 3_600_000


def ends(machine: Path) -> ServiceEnds:
    exit_files.make(machine)
    return ServiceEnds(machine, "comfyui", 0)


def test_a_restart_that_was_asked_for_names_its_reason(tmp_path: Path) -> None:
    watched = ends(tmp_path)
    now_ms = int(time.time() * 1000) + 5
    why = "it is RUNNING, unhealthy: its health check failed 12 times or more: it did not answer within 5 s"
    exit_files.leave_asked(tmp_path, "comfyui-gpu0", Asked(at_ms=now_ms, why=why))
    found = watched.found()
    assert found is not None and found.asked == why
    assert found.error.message == f"emp restarted comfyui-gpu0 during this job: {why}" and found.error.retryable


def test_only_a_restart_since_the_run_began_and_of_its_own_service_counts(tmp_path: Path) -> None:
    watched = ends(tmp_path)
    now_ms = int(time.time() * 1000)
    exit_files.leave_asked(tmp_path, "comfyui-gpu0", Asked(at_ms=now_ms - HOUR_MS, why="old"))
    exit_files.leave_asked(tmp_path, "comfyui-gpu1", Asked(at_ms=now_ms + 5, why="another slot"))
    assert watched.found() is None


def test_what_was_asked_for_is_no_end_that_an_agent_tells_of(tmp_path: Path) -> None:
    exit_files.make(tmp_path)
    exit_files.leave(tmp_path, "comfyui-gpu0", ProgramEnd(at_ms=1, exit_status=3))
    exit_files.leave_asked(tmp_path, "comfyui-gpu0", Asked(at_ms=2, why="x"))
    assert exit_files.known(tmp_path) == {"comfyui-gpu0": ProgramEnd(at_ms=1, exit_status=3)}
    exit_files.forget(tmp_path, "comfyui-gpu0")
    assert exit_files.read_asked(tmp_path, "comfyui-gpu0") is None


def test_what_does_not_fit_is_no_word(tmp_path: Path) -> None:
    watched = ends(tmp_path)
    exit_files.path_of(tmp_path, "comfyui-gpu0").with_suffix(".asked").write_text('{"at_ms": "x"}')
    assert watched.found() is None
