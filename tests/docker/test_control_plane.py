"""A control plane in containers, on an engine of our own: applied, looked at, hurt, and taken down, as a user does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emp_orch.images import CONTROL_IMAGE
from emp_orch.runtimes.compose.folder import folder_digest
from support.docker.engine import BASE, Engine, emp_images
from support.stack.stack import Stack, until

CLI = "emp-test-cli:1"
PARTS = ["redis", "api", "reconcile", "monitor", "eventlog"]


@pytest.fixture(scope="module")
def control_image(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The control plane's image, with the docker command line and Compose of this host."""
    folder = tmp_path_factory.mktemp("cli")
    plugin = _compose_plugin()
    for source, target in (
        (shutil.which("docker"), "usr/local/bin/docker"),
        (plugin, "usr/local/libexec/docker/cli-plugins/docker-compose"),
    ):
        assert source is not None
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / target)
    tar = folder / "cli.tar"
    subprocess.run(["tar", "-C", str(folder), "-cf", str(tar), "usr"], check=True)
    engine.docker("import", str(tar), CLI)
    first, again = (
        emp_images(engine, "build", "--base", BASE, "--control", "--cli", CLI).splitlines() for _ in range(2)
    )
    assert first == [f"{machine_image} is up to date", f"built {CONTROL_IMAGE}"]
    assert again == [f"{machine_image} is up to date", f"{CONTROL_IMAGE} is up to date"]
    yield CONTROL_IMAGE
    engine.docker("rmi", "--force", CONTROL_IMAGE, CLI)


def _compose_plugin() -> Path:
    asked = subprocess.run(
        ["docker", "info", "--format", "{{json .ClientInfo.Plugins}}"], capture_output=True, text=True
    )
    return next(Path(p["Path"]) for p in json.loads(asked.stdout) if p["Name"] == "compose")


class ContainedStack(Stack):
    """A fleet whose control plane is containers of `engine`; `machines` as emp.yaml has them, else none."""

    def __init__(self, folder: Path, engine: Engine, image: str, machines: str = "{}") -> None:
        super().__init__(folder)
        self.engine = engine
        self.machines = machines
        self.image = image
        self.write()

    def write(self, control: str = "") -> None:
        image = "" if self.image == CONTROL_IMAGE else f"image: '{self.image}', "
        control = control or f"{{runtime: compose, {image}redis_image: '{BASE}'}}"
        ports = self.ports
        self.file.write_text(
            f"version: 1\nname: test\nredis: {{port: {ports['redis']}}}\n"
            f"api: {{port: {ports['api']}}}\nmonitor: {{port: {ports['monitor']}}}\ncontrol: {control}\n"
            f"services:\n  simulation: {{scale: per_gpu, builtin: simulation, port: 8188}}\nmachines: {self.machines}\n"
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"DOCKER_HOST": self.engine.url, **env})

    def containers(self) -> dict[str, str]:
        """The id of each part's container, running or not."""
        ours = ["--filter", "label=emp.part", "--filter", f"label=emp.folder={folder_digest(self.layout)}"]
        argv = ["ps", "--all", "--no-trunc", *ours, "--format", '{{.Label "emp.part"}} {{.ID}}']
        return dict(line.split() for line in self.engine.docker(*argv).splitlines())

    def pid(self, part: str) -> int:
        return int(self.engine.inspect(self.containers()[part])["State"]["Pid"])

    def is_healthy(self, part: str) -> bool:
        return bool(self.engine.inspect(self.containers()[part])["State"]["Health"]["Status"] == "healthy")

    def parts(self) -> dict[str, str]:
        document: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return {p["name"]: p["state"] for p in document["control_plane"]["parts"]}


@pytest.fixture(scope="module")
def stack(engine: Engine, control_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainedStack]:
    made = ContainedStack(tmp_path_factory.mktemp("contained"), engine, control_image)
    try:
        made.up()
        yield made
    finally:
        made.run("down")
        left = list(made.containers().values())
        if left:
            engine.docker("rm", "-f", *left)


def test_every_part_is_a_container_and_well(stack: ContainedStack) -> None:
    assert sorted(stack.containers()) == sorted(PARTS)
    assert stack.parts() == dict.fromkeys(PARTS, "RUNNING")
    for name in ("api", "monitor", "redis"):
        until(f"{name} is healthy", partial(stack.is_healthy, name))
    assert stack.run("diff").returncode == 0
    assert "supervisord" not in stack.ok("status")  # Docker holds them, nothing else does
    assert json.loads(stack.run("status", "--json").stdout)["control_plane"]["supervisord"] is None
    doctor = stack.run("doctor")
    assert doctor.returncode == 0, doctor.stdout


def test_logs_lie_where_they_do_without_containers(stack: ContainedStack) -> None:
    for part in ("api", "monitor", "reconcile", "redis"):
        until(f"lines of {part}", partial(stack.ok, "logs", part))
    assert {"api.log", "monitor.log", "reconcile.log", "redis.log"} <= {p.name for p in stack.layout.logs.iterdir()}


def test_a_second_apply_changes_nothing(stack: ContainedStack) -> None:
    before = stack.containers()
    stack.up()
    assert stack.containers() == before


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_is_back_by_itself(stack: ContainedStack, part: str) -> None:
    pid = stack.pid(part)
    os.kill(pid, signal.SIGKILL)
    until(f"another {part}", lambda: stack.pid(part) not in (0, pid))
    until("all parts run", lambda: stack.parts() == dict.fromkeys(PARTS, "RUNNING"))
    stack.until_in_sync()


def test_what_a_stranger_stopped_or_removed_the_next_apply_brings_back(stack: ContainedStack) -> None:
    containers = stack.containers()
    stack.engine.docker("stop", containers["monitor"])
    stack.engine.docker("rm", "-f", containers["api"])
    assert {n: s for n, s in stack.parts().items() if s != "RUNNING"} == {"api": "gone", "monitor": "EXITED"}
    assert stack.run("status").returncode == 2
    stack.up()
    assert stack.parts() == dict.fromkeys(PARTS, "RUNNING")
    assert stack.containers()["redis"] == containers["redis"]


def test_another_port_is_followed(stack: ContainedStack) -> None:
    stack.ports["api"] = stack.ports["simulation"]
    stack.write()
    before = stack.containers()
    stack.up()
    assert stack.containers()["redis"] == before["redis"]
    assert stack.parts() == dict.fromkeys(PARTS, "RUNNING")


def test_the_kind_of_plane_does_not_change_while_it_runs(stack: ContainedStack) -> None:
    stack.write("{runtime: process}")
    refused = stack.run("apply", "-y")
    stack.write()
    assert (refused.returncode, "run `emp down` first" in refused.stderr) == (2, True)


def test_down_removes_what_is_ours_and_no_stranger(stack: ContainedStack) -> None:
    stranger = stack.engine.docker("run", "-d", BASE, "sleep", "600").strip()
    volumes = stack.engine.docker("volume", "ls", "--quiet").split()
    stack.ok("down")
    assert stack.containers() == {}
    assert stack.engine.status(stranger) == "running"
    assert stack.engine.docker("volume", "ls", "--quiet").split() == volumes == []
    stack.engine.docker("rm", "-f", stranger)
    assert stack.leftovers() == []
    assert stack.run("status").returncode == 1
    stack.up()
    assert stack.parts() == dict.fromkeys(PARTS, "RUNNING")


def test_its_reconciler_makes_and_heals_machines(
    engine: Engine, control_image: str, machine_image: str, tmp_path: Path
) -> None:
    machines = f"{{box: {{runtime: compose, image: '{machine_image}', services: [simulation], num_gpus: 2}}}}"
    stack = ContainedStack(tmp_path, engine, control_image, machines)

    def box() -> list[str]:
        return engine.docker("ps", "-q", "--no-trunc", "--filter", "label=emp.machine=box").split()

    try:
        stack.up()
        (first,) = box()
        stack.ok("status")  # exit 0: everything runs
        engine.docker("rm", "-f", first)
        until("another container of box", lambda: box() not in ([], [first]))
        stack.until_in_sync()
        job = json.loads(stack.ok("submit", "simulation", "--wait", "--json"))
        assert job["status"] == "completed"
    finally:
        down = stack.run("down")
    assert down.returncode == 0, down.stderr
    assert box() == []
    assert stack.containers() == {}


def test_without_its_image_it_says_so(engine: Engine, tmp_path: Path) -> None:
    stack = ContainedStack(tmp_path, engine, "emp-control:nowhere")
    done = stack.run("apply", "-y")
    assert (done.returncode, "has no image emp-control:nowhere" in done.stderr) == (1, True)
    assert stack.run("down").returncode == 0


def test_an_engine_that_is_away(engine: Engine, tmp_path: Path) -> None:
    stack = ContainedStack(tmp_path, engine, "x")
    done = stack.run("apply", "-y", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert (done.returncode, "does not answer" in done.stderr) == (3, True)
