"""A fleet whose emp changes: what ran the old one is replaced, jobs and services run on; a bad release never works."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from emp_orch.procident import alive
from support.stack.release import DAEMONS, WORKERS, Release
from support.stack.stack import Stack, until

KEPT = ("supervisord", "simulation", "comfyui-gpu0", "comfyui-gpu1")


@pytest.fixture
def release(tmp_path: Path, folder_stack: Stack) -> Release:
    made = Release(tmp_path / "source", folder_stack)
    made.in_force()
    return made


def test_another_release_replaces_what_runs_the_old_one_and_nothing_else(release: Release) -> None:
    stack = release.stack
    (first,) = release.packages
    assert release.running == {first}
    assert "nothing to do" in release.in_force()
    kept, workers, daemons = release.pids(KEPT), release.pids(WORKERS), release.daemons()
    agent = stack.program("agent")
    job = stack.ok("submit", "simulation", "--payload", '{"prompt": "a fox", "steps": 300}', "--json")
    job_id = json.loads(job)["id"]
    until("it runs", lambda: release.job(job_id)["status"] == "in_progress")

    release.becomes("# a later release")
    until(
        "it is told before anybody applies it",
        lambda: "`emp apply` takes it over" in release.emp("diff").stdout,
        shown=lambda: release.emp("diff").stdout + stack.log_ends(),
    )
    (told,) = stack.diff()[1]["drift"]
    assert told["drift"]["kind"] == "emp-outdated" and first[:12] in told["drift"]["desired"]
    assert release.pids((*KEPT, *WORKERS, "agent")) == {**kept, **workers, "agent": agent}
    said = release.in_force()
    assert "workers  (restart)" in said and "control plane  (restart): it runs another emp" in said
    (second,) = until("the first is deleted", lambda: found if len(found := release.packages) == 1 else None)
    assert second != first and release.running == {second}
    assert release.pids(KEPT) == kept
    assert stack.program("agent") != agent
    now = release.daemons()
    assert {name for name in now if now[name] != daemons[name]} == set(DAEMONS)
    assert not any(alive(who) for who in workers.values())
    until("it is said", lambda: f"Worker cache cleaned: {first[:12]} removed" in release.agent_log())
    assert stack.diff()[0] == 0
    done = release.job(job_id)
    assert done["status"] == "completed" and done["attempts"] == 1, done
    reported = {w["package"] for w in json.loads(stack.ok("status", "--json"))["workers"]}
    assert reported == {second}
    _starts_while_the_api_is_away(release)
    _a_later_extension_is_a_restart_of_each_machine(release)


def _starts_while_the_api_is_away(release: Release) -> None:
    """What is on disk is not downloaded again."""
    stack, downloads = release.stack, release.agent_log().count("phase=downloading")
    before, packages = stack.program("supervisord"), release.packages
    os.kill(stack.control("api").pid, signal.SIGSTOP)
    try:
        os.kill(before.pid, signal.SIGKILL)
        until("it is started again", lambda: stack.program("supervisord") != before)
        stack.until_in_sync()
        assert release.running == release.packages == packages
    finally:
        os.kill(stack.control("api").pid, signal.SIGCONT)
    assert release.agent_log().count("phase=downloading") == downloads == 2


def _a_later_extension_is_a_restart_of_each_machine(release: Release) -> None:
    stack, daemons, supervisord = release.stack, release.daemons(), release.stack.program("supervisord")
    job = json.loads(stack.ok("submit", "simulation", "--payload", '{"prompt": "a fox", "steps": 100}', "--json"))["id"]
    release.changes_supervisord()
    release.in_force()
    now = release.daemons()
    assert not set(now.values()) & set(daemons.values()) and stack.program("supervisord") != supervisord
    assert "nothing to do" in release.in_force()
    until("the job ends", lambda: release.job(job)["status"] == "completed")
    assert "supervisord-outdated" in stack.ok("journal", "--json", "-n", "500")


def test_a_release_that_does_not_run_never_gets_to_work(release: Release) -> None:
    stack = release.stack
    (first,) = release.packages
    before = release.pids((*KEPT, *WORKERS, "agent"))
    release.becomes("import surely_not_there")
    said = release.apply("--timeout", "20")
    assert said.returncode == 4, said.stdout + said.stderr
    assert "the package does not run here: ModuleNotFoundError: No module named 'surely_not_there'" in said.stderr
    drift = [d["drift"] for d in stack.diff()[1]["drift"]]
    assert {d["kind"] for d in drift} == {"worker-outdated"} and len(drift) == len(WORKERS)
    assert release.pids((*KEPT, *WORKERS, "agent")) == before
    assert release.packages == {first}
    failed = [e for e in stack.ok("events", "--json").splitlines() if '"worker_package"' in e and '"failed"' in e]
    assert failed and "surely_not_there" in failed[-1]

    release.becomes("# mended")
    release.in_force()
    assert first not in release.running and len(release.running) == 1
    assert release.pids(KEPT) == {name: before[name] for name in KEPT}
