"""A machine on another Docker host, with the default store: its jobs' files go through the API, none stays there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from emp_orch.services.simulation import png
from support.docker.engine import BASE, Engine, emp_images, load_base, load_machine, why_not
from support.docker.far import FarEngine
from support.stack.stack import Stack, free_ports, until

FAR = "far"
PASSWORD = "let-me-in"
SECRETS = "/var/lib/emp-own/secrets"
NODE = (
    f"for f in hub_redis_url secrets.json orders.json api.json; do cat {SECRETS}/$f; done; echo all tried; sleep 100000"
)
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "back"}}
LOAD = {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "set/photo.png"}}, "2": SAVE}}


class Far(Stack):
    """One machine on an engine elsewhere, by TLS; it reaches this host's API and a Redis."""

    def __init__(self, folder: Path, engine: FarEngine, image: str) -> None:
        super().__init__(folder, name="farfiles")
        self.engine = engine
        self.redis_port = free_ports(1)
        shutil.copytree(engine.certs, self.root / "tls")
        reach = f"{{docker: '{engine.url}', tls: {{ca: tls/ca.pem, cert: tls/cert.pem, key: tls/key.pem}}}}"
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: farfiles",
                    f'redis: {{url: "redis://:${{REDIS_PASSWORD}}@{engine.here}:{self.redis_port}/0"}}',
                    f"api: {{host: 0.0.0.0, port: {self.ports['api']}, token: {{env: EMP_TOKEN}},",
                    f"  machine_url: 'http://{engine.here}:{self.ports['api']}'}}",
                    f"monitor: {{port: {self.ports['monitor']}}}",
                    f"hosts: {{gpu: {reach}}}",
                    "services:",
                    "  comfyui: {scale: per_gpu, builtin: simulation, port: 8188, health: {http: /system_stats}}",
                    f"  node: {{scale: per_machine, command: [sh, -c, '{NODE}']}}",
                    "machines:",
                    f"  {FAR}: {{runtime: compose, host: gpu, image: '{image}', num_gpus: 1,",
                    "    services: [comfyui, node]}",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"EMP_TOKEN": "a-token-of-ours", "REDIS_PASSWORD": PASSWORD, **env})

    def container(self) -> str:
        argv = ["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=emp.machine={FAR}"]
        return self.engine.docker(*argv).strip()


@contextmanager
def a_redis(root: Path, host: str, port: int) -> Iterator[None]:
    words = ["--port", str(port), "--bind", "127.0.0.1", host, "--requirepass", PASSWORD, "--save", ""]
    process = subprocess.Popen(["redis-server", *words, "--dir", str(root)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    if reason := why_not():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("far")
    with ExitStack() as open_:
        engine = open_.enter_context(FarEngine())
        load_base(engine)
        stack = Far(root / "fleet", engine, load_machine(engine))
        open_.enter_context(a_redis(root, engine.here, stack.redis_port))
        try:
            stack.up()
            yield stack
        finally:
            stack.run("down", "--volumes")


def there_and_back(stack: Stack) -> None:
    """A picture of ours is saved as an output by one job, and that output is an input of another."""

    def painted(job_id: str, source: str) -> Path:
        words = (
            "--payload",
            json.dumps(LOAD),
            "--json",
            "--wait",
            "--id",
            job_id,
            "--input",
            f"set/photo.png={source}",
        )
        done = stack.run("submit", "comfyui", *words)
        assert done.stdout, done.stderr
        job = json.loads(done.stdout)
        assert job["status"] == "completed", f"{job['error']}{stack.log_ends()}"
        stack.ok("jobs", "fetch", job_id, "-o", str(stack.root / "fetched" / job_id))
        (file,) = (stack.root / "fetched" / job_id).iterdir()
        return file

    picture = png.Picture(width=16, height=16, rgb=bytes([9, 7, 200]) * 256, alpha=None)
    photo = stack.root / "x.png"
    photo.write_bytes(png.encode(picture))
    first = painted("first", f"@{photo}")
    second = painted("second", f"job:first/{first.name}")
    assert {png.decode(file.read_bytes()).rgb for file in (first, second)} == {picture.rgb}


def test_inputs_get_there_and_outputs_come_back(far: Far) -> None:
    there_and_back(far)


def test_nothing_of_them_stays_there_and_no_token_is_shown(far: Far) -> None:
    container = far.container()
    found = far.engine.inspect(container)
    assert "EMP_ARTIFACTS_URL=api://" in found["Config"]["Env"]
    left = far.engine.docker(
        *("exec", container, "find", "/var/lib/emp", "/var/lib/emp-own"),
        *("-not", "-path", "*/packages/*", "(", "-name", "artifacts", "-o", "-name", "*sending*", ")"),
    )
    assert left.strip() == ""
    token = json.loads(far.engine.docker("exec", container, "cat", "/var/lib/emp-own/secrets/api.json"))["token"]
    shown = json.dumps(found) + far.engine.docker("logs", container, both=True) + far.log_ends(lines=10_000)
    assert len(token) > 20 and token not in shown
    command = far.engine.docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "--artifacts api://" in command and token not in command


def test_a_service_there_reads_none_of_its_machines_secrets(far: Far) -> None:
    def said() -> list[str]:
        found = far.ok("logs", f"{FAR}/node").splitlines()
        return found if any("all tried" in line for line in found) else []

    lines = until("its words", said)
    assert len([line for line in lines if "Permission denied" in line]) == 4, lines
    assert far.engine.docker("exec", far.container(), "cat", f"{SECRETS}/hub_redis_url").startswith("redis://")


def test_the_package_of_a_store_is_built_in(far: Far) -> None:
    assert emp_images(far.engine, "build", "--base", BASE, "--tag", "emp-machine:s3", "--store", "s3").strip()
    script = "from emp_orch.store.artifacts.store import Artifacts; print(type(Artifacts('s3://b/f')._fs).__name__)"
    run = ["run", "--rm", "--entrypoint", "/opt/emp/bin/python3"]
    assert far.engine.docker(*run, "emp-machine:s3", "-c", script).strip() == "S3FileSystem"
    worker = ["worker", "--machine", "m", "--artifacts", "s3://b/f", "--service", "x=simulation@http://127.0.0.1:1"]
    url = f"HUB_REDIS_URL=redis://:{PASSWORD}@{far.engine.here}:{far.redis_port}/0"
    name = far.engine.docker(
        *("run", "--detach", "--env", url, "--entrypoint", "/opt/emp/bin/emp", load_machine(far.engine), *worker)
    ).strip()
    until("its reason", lambda: "emp images build --store s3" in far.engine.docker("logs", name, both=True))


class Near(Stack):
    """A machine of this host's engine `url`, and a store that is a folder which it does not see."""

    def __init__(self, folder: Path, url: str, image: str) -> None:
        super().__init__(folder, name="nearfiles")
        self.url = url
        self.store = self.root / "elsewhere"
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: nearfiles",
                    f"redis: {{port: {self.ports['redis']}}}",
                    f"api: {{port: {self.ports['api']}}}",
                    f"monitor: {{port: {self.ports['monitor']}}}",
                    f"jobs: {{artifacts: 'file://{self.store}'}}",
                    "services:",
                    "  comfyui: {scale: per_gpu, builtin: simulation, port: 8188, health: {http: /system_stats}}",
                    "machines:",
                    f"  near: {{runtime: compose, image: '{image}', num_gpus: 1, services: [comfyui]}}",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{"DOCKER_HOST": self.url, **env})


def test_one_of_this_host_finds_the_api_at_its_door(engine: Engine, machine_image: str, tmp_path: Path) -> None:
    stack = Near(tmp_path / "fleet", engine.url, machine_image)
    try:
        stack.up()
        there_and_back(stack)
        assert sorted(p.name for p in stack.store.iterdir()) == [".assets", "first", "second"]
    finally:
        stack.run("down", "--volumes")
