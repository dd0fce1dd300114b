"""A fleet whose emp changes: what ran the old one is replaced, jobs and services run on; a bad release never works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest

from emp_orch.procident import ProcessIdentity, alive
from support.stack.stack import MACHINE, Stack, until
from support.tree import ROOT

KEPT = ("supervisord", "simulation", "comfyui-gpu0", "comfyui-gpu1")
DAEMONS = ("api", "monitor", "reconcile", "eventlog")
WORKERS = ("redis-worker-gpu0", "redis-worker-gpu1")


class Release:
    """An installation of emp that a fleet is applied from and runs, and that changes."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.root = folder
        self.stack = stack
        for name in ("emp_orch", "templates", "schema"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "emp.yaml", folder)
        # Its packages are those of the tests; emp is the copy.
        venv.create(folder / "venv", symlinks=True)
        (packages,) = (folder / "venv").glob("lib/python3*/site-packages")
        (packages / "emp.pth").write_text(f"{folder}\n{site.getsitepackages()[0]}\n")
        self._module = folder / "emp_orch" / "worker" / "daemon.py"
        self._text = self._module.read_text()
        self._extension = folder / "emp_orch" / "machine" / "supervision" / "due.py"

    def becomes(self, line: str) -> None:
        """The next release: one whose worker begins with `line`."""
        self._module.write_text(self._text.replace("import asyncio\n", f"import asyncio\n{line}\n", 1))

    def changes_supervisord(self) -> None:
        """The next release: one with another extension."""
        self._extension.write_text(self._extension.read_text() + "# a later extension\n")

    def emp(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.root / "venv/bin/python"), *self.stack.argv(*args)[1:]]
        return subprocess.run(
            argv, cwd=self.stack.root, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )

    def apply(self, *more: str) -> subprocess.CompletedProcess[str]:
        """`emp apply -y` of this release."""
        return self.emp("apply", "-y", *more)

    def in_force(self) -> str:
        """Apply it; what that said."""
        done = self.apply()
        assert done.returncode == 0, done.stdout + done.stderr + self.stack.log_ends()
        return done.stdout + done.stderr

    def job(self, job_id: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.stack.api}/api/jobs/{job_id}", timeout=10) as answer:
            job: dict[str, Any] = json.load(answer)["data"]
            return job

    @property
    def packages(self) -> set[str]:
        """What the machine has on its disk."""
        return {p.name for p in (self.stack.layout.machine(MACHINE) / "packages").iterdir() if len(p.name) == 64}

    @property
    def running(self) -> set[str]:
        """The packages that its workers run from."""
        paths = [Path(f"/proc/{self.stack.program(name).pid}/environ").read_bytes() for name in WORKERS]
        return {v[12:].decode() for text in paths for v in text.split(b"\0") if v.startswith(b"EMP_PACKAGE=")}

    def pids(self, names: tuple[str, ...]) -> dict[str, ProcessIdentity]:
        return {name: self.stack.program(name) for name in names}

    def daemons(self) -> dict[str, ProcessIdentity]:
        return {name: self.stack.control(name) for name in ("supervisord", "redis", *DAEMONS)}

    def agent_log(self) -> str:
        return (self.stack.layout.logs / f"machine-{MACHINE}" / "agent.log").read_text()


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
    (second,) = until("the first is deleted", lambda: found if len(found := release.packages) == 1 else None)  # type: ignore[misc]
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
