"""A fleet of containers on a real engine: applied, scaled, hurt by strangers, and taken down, as a user does it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis

from emp_orch.control.plane.packing import own_package
from emp_orch.images import kept_name
from support.docker.engine import Engine
from support.docker.stack import EngineStack
from support.stack.stack import until

TWO, FOUR = "two", "four"
HEALED_S = 90.0


class Boxes(EngineStack):
    """Two machines in containers of `engine`, with 2 and 4 GPU slots."""

    def __init__(self, folder: Path, engine: Engine, image: str) -> None:
        super().__init__(folder, engine, name="boxes")
        self.image = image
        self.write()

    def write(self, *, two: str = "num_gpus: 2", more: str = "", four: str = "num_gpus: 4") -> None:
        ports = self.ports
        machines = [f"  {TWO}: {{{two}}}", *([f"  {FOUR}: {{{four}}}"] if four else []), *([more] if more else [])]
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: boxes",
                    f"redis: {{port: {ports['redis']}}}",
                    f"api: {{port: {ports['api']}}}",
                    f"monitor: {{port: {ports['monitor']}}}",
                    "services:",
                    "  simulation: {scale: per_machine, builtin: simulation, port: 8299}",
                    "  comfyui: {scale: per_gpu, builtin: simulation, port: 8188, health: {http: /system_stats}}",
                    f"defaults: {{runtime: compose, image: '{self.image}', services: [simulation, comfyui]}}",
                    "machines:",
                    *machines,
                    "",
                ]
            )
        )

    def container(self, machine: str) -> str:
        """The id of a machine's container, running or not; empty without one."""
        argv = ["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=emp.machine={machine}"]
        return self.engine.docker(*argv, "--filter", "label=emp.fleet=boxes").strip()

    def containers(self) -> dict[str, str]:
        return {m: self.container(m) for m in (TWO, FOUR)}

    def kinds(self) -> set[str]:
        return {d["drift"]["kind"] for d in self.diff()[1]["drift"]}

    def workers(self) -> list[str]:
        found = json.loads(self.ok("status", "--json"))
        return sorted(w["worker_id"] for w in found["workers"])

    def inside(self, machine: str, *argv: str) -> str:
        return self.engine.docker("exec", self.container(machine), *argv)


@pytest.fixture(scope="module")
def boxes(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    stack = Boxes(tmp_path_factory.mktemp("boxes"), engine, machine_image)
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")


def _healed(boxes: Boxes) -> None:
    boxes.until_in_sync(within_s=HEALED_S)
    assert len(boxes.workers()) == 6


def test_both_are_ready_and_locked_down(boxes: Boxes) -> None:
    assert boxes.diff()[0] == 0
    assert boxes.workers() == [*(f"{FOUR}-worker-{n}" for n in range(4)), *(f"{TWO}-worker-{n}" for n in range(2))]
    found = boxes.engine.inspect(boxes.container(TWO))
    assert found["Config"]["User"] == "10001:10001"
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert "NUM_GPUS=2" in found["Config"]["Env"]
    doctor = boxes.run("doctor")
    assert (doctor.returncode, "2 of 2 machines up" in doctor.stdout) == (0, True), doctor.stdout
    password = _password(boxes)
    assert password
    assert password not in json.dumps(found)
    assert password not in boxes.log_ends(lines=10_000)
    assert password not in (boxes.layout.hosts / "local" / "compose.yaml").read_text()
    # What applied may be read by nobody else.
    assert (boxes.layout.state.stat().st_mode & 0o077) == 0


def test_workers_run_the_package_that_the_api_serves(boxes: Boxes) -> None:
    fetched = [line for line in boxes.layout.log("api").read_text().splitlines() if "GET /packages/" in line]
    assert len(fetched) == 2
    assert all(f"{own_package().digest} 200" in line for line in fetched)
    with pytest.raises(AssertionError, match="No such file"):
        boxes.inside(TWO, "cat", "/var/lib/emp-own/machine/api.json")
    token = json.loads(boxes.inside(TWO, "cat", "/run/secrets/api.json"))["token"]
    assert token not in json.dumps(boxes.engine.inspect(boxes.container(TWO)))


def _password(boxes: Boxes) -> str:
    settings = json.loads(boxes.layout.settings.read_text())
    return str(settings["redis_url"]).partition("://:")[2].partition("@")[0]


def test_each_has_a_user_of_its_own_at_redis_and_no_service_its_login(boxes: Boxes) -> None:
    url = urlsplit(boxes.inside(TWO, "cat", "/run/secrets/hub_redis_url").strip())
    assert unquote(url.username or "") == f"emp:boxes:{TWO}" and url.password and url.password != _password(boxes)
    with redis.Redis.from_url(url.geturl().replace("host.docker.internal", "127.0.0.1")) as r:
        assert r.hexists("machines", TWO)
        for words in (("GET", f"machine:{FOUR}:config"), ("GET", "fleet:boxes:spec:1"), ("KEYS", "*"), ("SELECT", "1")):
            with pytest.raises(redis.ResponseError, match=r"(?i)perm"):
                r.execute_command(*words)
    script = "cd /proc; for p in [0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; tr '\\0' ' ' < $p/environ; echo; done"
    lines = boxes.inside(TWO, "sh", "-c", f"{{ {script}; }} 2>/dev/null").splitlines()
    holding = [command for command, environ in itertools.pairwise(lines) if url.password in environ]
    assert len(holding) == 2 and all("emp_orch worker" in command for command in holding), holding


def test_jobs_run_in_them_and_their_outputs_are_here(boxes: Boxes) -> None:
    for _ in range(8):
        boxes.ok("submit", "simulation")
    done = json.loads(boxes.ok("submit", "simulation", "--wait", "--json"))
    assert done["status"] == "completed"
    boxes.ok("jobs", "fetch", done["id"], "-o", str(boxes.root / "out"))
    assert any((boxes.root / "out").rglob("*.png"))

    def all_done() -> bool:
        listed = json.loads(boxes.ok("jobs", "list", "--json"))
        return [j["status"] for j in listed["jobs"]] == ["completed"] * 9

    until("all jobs done", all_done)


def test_a_second_apply_makes_nothing(boxes: Boxes) -> None:
    before = boxes.containers()
    assert "nothing to do" in boxes.ok("apply", "-y")
    assert boxes.containers() == before


def test_slots_are_scaled_in_place(boxes: Boxes) -> None:
    before = boxes.containers()
    boxes.write(two="num_gpus: 3")
    said = boxes.run("apply", "-y", "--timeout", "90")
    assert said.returncode == 0, said.stderr
    assert f"{TWO}  (in place): num_gpus 2 → 3" in said.stderr
    assert len(boxes.workers()) == 7
    boxes.write()
    boxes.ok("apply", "-y", "--timeout", "90")
    assert boxes.containers() == before
    _healed(boxes)


def test_what_only_a_new_container_can_change_is_said_and_done(boxes: Boxes) -> None:
    before = boxes.containers()
    boxes.write(two="num_gpus: 2, limits: {memory: 2GiB}")
    said = boxes.run("apply", "-y", "--timeout", "90")
    assert said.returncode == 0, said.stderr
    assert f"{TWO}  (recreate)" in said.stderr
    after = boxes.containers()
    assert after[FOUR] == before[FOUR]
    assert after[TWO] != before[TWO]
    assert boxes.engine.inspect(after[TWO])["HostConfig"]["Memory"] == 2 * 1024**3
    journal = boxes.ok("journal", "--json")
    assert "container-outdated" in journal
    boxes.write()
    boxes.ok("apply", "-y", "--timeout", "90")
    _healed(boxes)


@pytest.mark.parametrize("name", ["redis-worker-gpu1", "supervisord"])
def test_kill_9_inside(boxes: Boxes, name: str) -> None:
    before = boxes.containers()
    pid = boxes.inside(TWO, "cat", f"/var/lib/emp-own/machine/run/{name}").split()[0]
    began = boxes.engine.inspect(before[TWO])["State"]["StartedAt"]
    boxes.inside(TWO, "python3", "-c", f"import os; os.kill({pid}, 9)")
    if name == "supervisord":
        # Its end is the container's, which the engine starts again.
        until("a new life", lambda: boxes.engine.inspect(boxes.container(TWO))["State"]["StartedAt"] != began)
    else:
        read = ("cat", f"/var/lib/emp-own/machine/run/{name}")
        until("a new worker", lambda: boxes.inside(TWO, *read).split()[0] != pid)
    _healed(boxes)
    assert boxes.containers() == before


@pytest.mark.parametrize("how", [("kill",), ("stop", "-t", "5"), ("rm", "-f")], ids=lambda h: h[0])
def test_a_stranger_ends_a_container(boxes: Boxes, how: tuple[str, ...]) -> None:
    before = boxes.containers()
    boxes.engine.docker(*how, before[TWO])
    until("missed", lambda: boxes.kinds() & {"machine-missing", "machine-booting", "machine-starting"})
    _healed(boxes)
    assert boxes.container(FOUR) == before[FOUR]
    assert (boxes.container(TWO) != before[TWO]) == (how[0] == "rm")


def test_the_engine_goes_and_comes_back(boxes: Boxes) -> None:
    before = boxes.containers()
    boxes.engine.stop()

    def unreachable() -> bool:
        drift = [d["drift"] for d in boxes.diff()[1]["drift"]]
        return any(d["kind"] == "machine-unreachable" and "Docker host local" in d["cause"] for d in drift)

    try:
        until("its machines unknown, and why", unreachable)
    finally:
        boxes.engine.start()
    _healed(boxes)
    assert boxes.containers() == before
    boxes.engine.kill()
    boxes.engine.start()
    _healed(boxes)
    assert boxes.containers() == before


def test_what_is_not_ours_is_left_alone(boxes: Boxes, machine_image: str) -> None:
    ours = boxes.engine.inspect(boxes.container(TWO))["Name"].lstrip("/")
    labels = ["--label", "emp.fleet=boxes", "--label", f"emp.machine={TWO}", "--label", "emp.folder=00000000"]
    entry = ["--entrypoint", "sleep", machine_image, "600"]
    stranger = boxes.engine.docker("run", "-d", "--name", f"{ours}-not", *labels, *entry).strip()
    try:
        assert boxes.diff()[0] == 0
        boxes.ok("restart", TWO)
        boxes.until_in_sync(within_s=HEALED_S)
        assert boxes.engine.status(stranger) == "running"
    finally:
        boxes.engine.docker("rm", "-f", stranger)


def test_by_hand_the_file_says_the_same(boxes: Boxes) -> None:
    before = boxes.containers()
    file = boxes.layout.hosts / "local" / "compose.yaml"
    boxes.engine.docker("compose", "-f", str(file), "up", "--detach")
    assert boxes.containers() == before


def test_logs_commands_and_figures(boxes: Boxes) -> None:
    assert "redis-worker-gpu0" in boxes.ok("logs", f"machine-{TWO}", "-n", "2000")


def test_a_machine_less_stays_until_pruned(boxes: Boxes) -> None:
    four = boxes.container(FOUR)
    volume = boxes.engine.docker("volume", "ls", "-q", "--filter", f"label=emp.machine={FOUR}").strip()
    assert volume
    boxes.write(four="")
    boxes.ok("apply", "-y", "--timeout", "90")
    assert boxes.engine.status(four) == "running"
    assert boxes.kinds() == {"machine-surplus"}
    boxes.ok("apply", "-y", "--prune", "--timeout", "90")
    assert boxes.container(FOUR) == ""
    assert boxes.engine.docker("volume", "ls", "-q", "--filter", f"label=emp.machine={FOUR}").strip() == ""
    assert boxes.diff()[0] == 0
    boxes.ok("down")
    assert boxes.container(TWO) == ""
    assert boxes.engine.docker("network", "ls", "-q", "--filter", "name=emp-boxes-").strip() == ""
    assert boxes.leftovers() == []


def test_an_image_that_was_deleted_is_named_as_why_it_does_not_heal(
    engine: Engine, machine_image: str, tmp_path: Path
) -> None:
    image = "emp-machine:deleted"
    made = _another(engine, machine_image, image)
    stack = Boxes(tmp_path / "deleted", engine, image)
    stack.write(two="num_gpus: 1", four="")
    try:
        stack.up()
        stack.ok("pause")
        engine.docker("rm", "-f", stack.container(TWO))
        engine.docker("rmi", image, kept_name(image, made))
        stack.ok("resume")
        why = "last attempt: Docker host local"
        until(
            "it is said",
            lambda: why in (shown := stack.run("status").stdout) and "`emp apply` takes the one" in shown,
            shown=lambda: stack.run("status").stdout + stack.run("journal").stdout,
        )
        doctor = stack.run("doctor").stdout
        assert "two does not run: it has no container on Docker host local" in doctor
        assert f"Docker host local has no image {image}" in doctor
        assert any(f"no longer has the image that {image} was" in d["failed"] for d in stack.diff()[1]["drift"])
        _another(engine, machine_image, image)
        stack.ok("apply", "-y", "--timeout", "90")
        stack.until_in_sync(within_s=HEALED_S)
    finally:
        stack.run("down")
        engine.docker("rmi", image)


def _another(engine: Engine, source: str, name: str) -> str:
    """An image of its own, of the same content as `source`, as `name`: its id."""
    engine.docker("create", "--name", "emp-test-another", source)
    engine.docker("commit", "emp-test-another", name)
    engine.docker("rm", "emp-test-another")
    return str(engine.inspect(name)["Id"])


def test_an_image_that_is_not_there_and_an_engine_that_is_away(engine: Engine, tmp_path: Path) -> None:
    stack = Boxes(tmp_path / "none", engine, "emp-machine:no-such")
    try:
        said = stack.run("apply", "-y")
        assert said.returncode == 1
        assert "Docker host local" in said.stderr and "has no image emp-machine:no-such" in said.stderr
        assert "`emp images build --tag emp-machine:no-such` makes it" in said.stderr
        assert stack.leftovers() == []
        away: dict[str, Any] = {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
        other = Boxes(tmp_path / "away", engine, "emp-machine:no-such")
        gone = subprocess.run(other.argv("apply", "-y"), env={**os.environ, **away}, capture_output=True, text=True)
        assert gone.returncode == 3
        assert "Docker host local" in gone.stderr
        assert "Traceback" not in gone.stderr
        assert other.leftovers() == []
    finally:
        stack.run("down")
