"""The example of docs/pools-command.md with a real engine: it keeps the contract, and its box joins and works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.docker.engine import BASE, Engine
from support.stack.stack import Stack, until
from support.tree import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "provider_docker.py"
BOX = "emp-test-command-box:1"
TOKEN = "a-token-of-ours"


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    """An image that does nothing, and ends when it is told to."""
    made = engine.docker("create", BASE, "true").strip()
    command = json.dumps(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"])
    engine.docker("commit", "--change", f"CMD {command}", made, BOX)
    engine.docker("rm", made)
    yield BOX
    engine.docker("image", "rm", "-f", BOX)


def owned(engine: Engine) -> list[str]:
    return engine.docker("ps", "-aq", "--filter", "label=emp.owner").split()


def trial(engine: Engine, folder: Path, image: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), "provider", "test", "--image", image, *options]
    return subprocess.run(
        [*argv, "--", sys.executable, str(EXAMPLE)], env=engine.env, capture_output=True, text=True, timeout=240
    )


def test_the_example_keeps_the_contract(engine: Engine, box: str, tmp_path: Path) -> None:
    done = trial(engine, tmp_path, box)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout and "11 of 11 rules are kept" in done.stdout
    assert owned(engine) == []


def test_dockers_own_words_are_told(engine: Engine, tmp_path: Path) -> None:
    done = trial(engine, tmp_path, "emp-test-none:1", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["left"] == []
    whys = {rule["rule"]: rule["why"] for rule in said["rules"]}
    assert "emp-test-none" in whys["create_shows_one_box"] and "at create: " in whys["create_shows_one_box"]
    assert whys["remove_of_unknown_is_no_fault"] == ""


class Fleet(Stack):
    """A pool of 0..1 whose boxes the example starts."""

    def __init__(self, folder: Path, engine: Engine, image: str) -> None:
        super().__init__(folder, name="rented")
        self.engine = engine
        shutil.copy(EXAMPLE, self.root / "mine.py")
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: rented",
                    f"redis: {{url: embedded, port: {self.ports['redis']}}}",
                    f"api: {{host: 0.0.0.0, port: {self.ports['api']}, token: {{env: EMP_TOKEN}},",
                    f"  machine_url: 'http://{engine.gateway}:{self.ports['api']}'}}",
                    f"monitor: {{port: {self.ports['monitor']}}}",
                    "services:",
                    "  simulation: {scale: per_machine, builtin: simulation, port: 8299}",
                    "machines: {}",
                    "pools:",
                    "  renders:",
                    "    provider: command",
                    f"    provider_options: {{command: ['{sys.executable}', ./mine.py], every: 1s}}",
                    "    size: 0..1",
                    "    services: [simulation]",
                    f"    image: {image}",
                    "    worker: {drain_timeout: 5s}",
                    "    scale: {jobs_per_gpu: 1, up_after: 0s, down_after: 3s}",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"DOCKER_HOST": self.engine.url, "EMP_TOKEN": TOKEN, **env})

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("jobs", "show", name, "--json"))
        return found

    def told(self) -> str:
        boxes = [self.engine.docker("logs", "--tail", "30", box, both=True) for box in owned(self.engine)]
        return "\n".join([self.run("pools").stdout, self.run("diff").stdout, *boxes, self.log_ends()])


@pytest.fixture
def fleet(engine: Engine, machine_image: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet", engine, machine_image)
    try:
        yield made
    finally:
        made.run("down")
        if boxes := owned(engine):
            engine.docker("rm", "-f", *boxes)


def test_its_box_joins_does_the_job_and_goes(fleet: Fleet) -> None:
    fleet.up()
    assert owned(fleet.engine) == []
    fleet.ok("submit", "simulation", "--id", "first", "--payload", "{}")
    until("it is done", lambda: fleet.job("first")["status"] == "completed", within_s=120, shown=fleet.told)
    (box,) = owned(fleet.engine)
    about = json.loads(fleet.engine.docker("inspect", box))[0]
    assert fleet.job("first")["worker_id"].startswith(about["Config"]["Labels"]["emp.member"])
    until("it is gone", lambda: owned(fleet.engine) == [], within_s=90, shown=fleet.told)
