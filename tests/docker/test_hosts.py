"""Two Docker hosts elsewhere, each an engine in its own network namespace; one by ssh, one by TLS, cut off and back."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emp_orch.control.plane.packing import own_package
from support.docker.engine import load_base, load_machine, why_not
from support.docker.far import FarEngine
from support.docker.ssh import far_away, ssh_door
from support.stack.stack import Stack, free_ports, until

A, B = "gpu-a", "gpu-b"
ON_A, ON_B = "one", "two"
PASSWORD = "let-me-in"
HEALED_S = 90.0


class Hosts(Stack):
    """A machine on each of two engines, a Redis of our own that both reach, and an API that they know. `path` is the
    PATH on which `ssh` knows the way to A."""

    def __init__(self, folder: Path, engines: dict[str, FarEngine], image: str, path: str) -> None:
        super().__init__(folder, name="hosts")
        self.engines = engines
        self.image = image
        self.path = path
        # An address of this host that stays when the link to A goes.
        self.here = engines[B].here
        first = free_ports(2)
        self.shared = (first, first + 1)
        shutil.copytree(engines[B].certs, self.root / "tls")
        self.write()

    def write(self, *, slots: int = 1, **ways: str) -> None:
        """emp.yaml, with other `ways` to reach a host than the usual."""
        tls = "tls: {ca: tls/ca.pem, cert: tls/cert.pem, key: tls/key.pem}"
        usual = {"a": f"{{docker: 'ssh://root@{A}'}}", "b": f"{{docker: '{self.engines[B].url}', {tls}}}"}
        reach = usual | ways
        machine_url = f"http://{self.here}:{self.ports['api']}"
        redis_url = f"redis://:${{REDIS_PASSWORD}}@{self.here}:{self.shared[0]}/0"
        self.file.write_text(
            "\n".join(
                [
                    "version: 1",
                    "name: hosts",
                    f'redis: {{url: "{redis_url}"}}',
                    f"api: {{host: 0.0.0.0, port: {self.ports['api']}, token: {{env: EMP_TOKEN}},",
                    f"  machine_url: '{machine_url}'}}",
                    f"monitor: {{port: {self.ports['monitor']}}}",
                    f"jobs: {{artifacts: 'ftp://{self.here}:{self.shared[1]}/outputs'}}",
                    "hosts:",
                    f"  {A}: {reach['a']}",
                    f"  {B}: {reach['b']}",
                    "services:",
                    "  simulation: {scale: per_machine, builtin: simulation, port: 8299}",
                    "  comfyui: {scale: per_gpu, builtin: simulation, port: 8188, health: {http: /system_stats}}",
                    f"defaults: {{runtime: compose, image: '{self.image}', services: [simulation, comfyui]}}",
                    "machines:",
                    f"  {ON_A}: {{host: {A}, num_gpus: 1}}",
                    f"  {ON_B}: {{host: {B}, num_gpus: {slots}}}",
                    "",
                ]
            )
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(
            *args, **{"EMP_TOKEN": "a-token-of-ours", "REDIS_PASSWORD": PASSWORD, "PATH": self.path, **env}
        )

    def life(self, host: str, machine: str) -> tuple[str, str]:
        """A machine's container, and when it began."""
        argv = ["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=emp.machine={machine}"]
        found = self.engines[host].docker(*argv).strip()
        return found, self.engines[host].inspect(found)["State"]["StartedAt"] if found else ""

    def drift(self) -> dict[str, dict[str, Any]]:
        """Each drift with what is said of it, by machine and kind."""
        return {f"{i['drift']['machine_id']} {i['drift']['kind']}": i for i in self.diff()[1]["drift"]}

    def workers(self) -> list[str]:
        return sorted(w["worker_id"] for w in json.loads(self.run("status", "--json").stdout)["workers"])


@contextmanager
def running(*argv: str) -> Iterator[None]:
    """A process of ours while the block lasts."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def store_and_redis(root: Path, host: str, ports: tuple[int, int]) -> Iterator[None]:
    """What all hosts share: a Redis, and files over FTP, which fsspec speaks with nothing more installed."""
    (root / "files").mkdir()
    redis = ["--port", str(ports[0]), "--bind", "127.0.0.1", host, "--requirepass", PASSWORD, "--save", ""]
    files = ["-i", host, "-p", str(ports[1]), "-d", str(root / "files"), "-w"]
    with running("redis-server", *redis, "--dir", str(root)), running(sys.executable, "-m", "pyftpdlib", *files):
        for port in ports:
            until(f"who listens on {port}", partial(_listens, host, port))
        yield


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("hosts")
    with ExitStack() as open_:
        engines = {name: open_.enter_context(FarEngine()) for name in (A, B)}
        for engine in engines.values():
            load_base(engine)
            image = load_machine(engine)
        path = open_.enter_context(ssh_door(engines[A], A, root / "ssh"))
        stack = Hosts(root / "fleet", engines, image, path)
        open_.enter_context(store_and_redis(root, stack.here, stack.shared))
        try:
            stack.up()
            yield stack
        finally:
            for engine in engines.values():
                engine.mend()
            stack.run("down")


def test_machines_on_hosts_elsewhere_are_whole(hosts: Hosts) -> None:
    assert hosts.diff()[0] == 0
    assert hosts.workers() == [f"{ON_A}-worker-0", f"{ON_B}-worker-0"]
    fetched = [line for line in hosts.layout.log("api").read_text().splitlines() if "GET /packages/" in line]
    assert len([line for line in fetched if f"{own_package().digest} 200" in line]) == 2
    done = json.loads(hosts.ok("submit", "simulation", "--wait", "--json"))
    assert done["status"] == "completed"
    hosts.ok("jobs", "fetch", done["id"], "-o", str(hosts.root / "out"))
    assert any((hosts.root / "out").rglob("*.png"))
    # What is secret is in the volume, and in nothing that the engine shows.
    shown = json.dumps(hosts.engines[A].inspect(hosts.life(A, ON_A)[0]))
    assert PASSWORD not in shown


def test_people_look_into_them(hosts: Hosts) -> None:
    shown = hosts.ok("logs", ON_A, "-n", "3000")
    assert "redis-worker-gpu0" in shown and "agent" in shown
    only = hosts.ok("logs", f"machine-{ON_A}/redis-worker-gpu0", "--json").splitlines()
    assert {json.loads(line)["component"] for line in only} == {f"machine-{ON_A}/redis-worker-gpu0"}
    doctor = hosts.run("doctor")
    assert doctor.returncode == 0 and f"Docker answers: {A}, {B}" in doctor.stdout, doctor.stdout
    both = hosts.run("logs", ON_A, "api")
    assert (both.returncode, "on its own host" in both.stderr) == (2, True)
    assert hosts.run("exec", ON_B, "--", "sh", "-c", 'echo "$MACHINE_ID"; exit 7').returncode == 7
    used = {m["machine_id"]: m for m in json.loads(hosts.ok("top", "--json"))["machines"]}
    assert {m for m, use in used.items() if use["memory"] and use["where"]} == {ON_A, ON_B}
    assert "redis-worker-gpu0" in {p["name"] for p in used[ON_A]["programs"]}


def test_people_look_into_one_that_is_far_away(hosts: Hosts) -> None:
    """A round trip of 0.2 s: ssh alone takes seconds to begin, longer than a look of the reconciler waits."""
    far = far_away(hosts.path, hosts.root.parent / "ssh", seconds=0.1)
    done = hosts.run("exec", ON_A, "--", "sh", "-c", 'echo "$MACHINE_ID"; exit 7', PATH=far)
    assert (done.returncode, done.stdout) == (7, f"{ON_A}\n"), done.stderr
    shown = hosts.run("logs", ON_A, "-n", "50", PATH=far)
    assert shown.returncode == 0 and shown.stdout, shown.stderr
    used = {m["machine_id"]: m for m in json.loads(hosts.ok("top", "--json", PATH=far))["machines"]}
    assert used[ON_A]["memory"] and not used[ON_A].get("why"), used[ON_A]


def test_one_host_is_cut_off_and_back(hosts: Hosts) -> None:
    before = hosts.life(A, ON_A)
    hosts.engines[A].cut()
    try:
        key = f"{ON_A} machine-unreachable"
        item = until("what is on A is unknown", lambda: hosts.drift().get(key))
        assert f"Docker host {A}" in item["drift"]["cause"]
        until("who acts tells since when", lambda: (hosts.drift()[key]["age_ms"] or 0) > 0)
        assert f"Docker host {A}" in hosts.ok("journal") and " (since 20" in hosts.ok("journal")
        assert f"Docker host {B}" not in json.dumps(hosts.diff()[1])
        assert f"unknown whether {ON_A} runs" in hosts.run("doctor").stdout
        # The other host's machine is healed and changed meanwhile.
        b = hosts.engines[B]
        b.docker("kill", hosts.life(B, ON_B)[0])
        until("only A is missed", lambda: set(hosts.drift()) == {key}, within_s=HEALED_S)
        hosts.write(slots=2)
        done = hosts.run("apply", "-y", "--timeout", "120")
        assert done.returncode == 1, done.stderr
        assert f"Docker host {A}" in done.stdout + done.stderr
        until("B is as the file says", lambda: f"{ON_B}-worker-1" in hosts.workers())
        assert "Traceback" not in hosts.log_ends(lines=10_000)
    finally:
        hosts.engines[A].mend()
    hosts.until_in_sync(within_s=HEALED_S)
    assert hosts.life(A, ON_A) == before  # nobody touched what was healthy


def test_the_other_host_is_cut_off_and_back(hosts: Hosts) -> None:
    before = hosts.life(B, ON_B)
    hosts.engines[B].cut()
    try:
        item = until("what is on B is unknown", lambda: hosts.drift().get(f"{ON_B} machine-unreachable"))
        assert f"Docker host {B}" in item["drift"]["cause"]
    finally:
        hosts.engines[B].mend()
    hosts.until_in_sync(within_s=HEALED_S)
    assert hosts.life(B, ON_B) == before


def test_an_ssh_that_does_not_let_us_in_says_why(hosts: Hosts) -> None:
    plain = os.environ["PATH"]  # on which ssh knows no way to A
    said = hosts.run("doctor", PATH=plain).stdout
    assert f"Docker host {A} (ssh://root@{A}) does not answer: " in said
    assert "Could not resolve hostname" in said


def test_another_way_to_the_same_host_changes_nothing(hosts: Hosts) -> None:
    before = hosts.life(A, ON_A)
    shutil.copytree(hosts.engines[A].certs, hosts.root / "tls-a", dirs_exist_ok=True)
    tls = "{ca: tls-a/ca.pem, cert: tls-a/cert.pem, key: tls-a/key.pem}"
    try:
        hosts.write(slots=2, a=f"{{docker: '{hosts.engines[A].url}', tls: {tls}}}")
        hosts.ok("apply", "-y")
        hosts.until_in_sync(within_s=HEALED_S)
        assert hosts.life(A, ON_A) == before
    finally:
        hosts.write(slots=2)
        hosts.ok("apply", "-y")
    assert hosts.life(A, ON_A) == before


def test_a_name_that_means_another_engine_now_is_refused(hosts: Hosts) -> None:
    before = hosts.life(A, ON_A), hosts.life(B, ON_B)
    hosts.write(slots=2, b=f"{{docker: 'ssh://root@{A}'}}")
    try:
        refused = hosts.run("apply", "-y")
    finally:
        hosts.write(slots=2)
    assert refused.returncode == 1, refused.stderr
    assert f"host {B}: ssh://root@{A} is another engine than {hosts.engines[B].url}, which has {ON_B}" in refused.stderr
    assert "emp down" in refused.stderr
    assert (hosts.life(A, ON_A), hosts.life(B, ON_B)) == before
    assert hosts.diff()[0] == 0


def test_they_are_taken_down_and_leave_no_secret(hosts: Hosts) -> None:
    hosts.ok("down")
    for host, machine in ((A, ON_A), (B, ON_B)):
        assert hosts.life(host, machine) == ("", "")
        docker = hosts.engines[host].docker
        volumes = docker("volume", "ls", "-q", "--filter", f"label=emp.machine={machine}").split()
        home, own = sorted(volumes)
        (services, folder) = docker("volume", "inspect", "--format", "{{.Mountpoint}}", home, own).split()
        assert own == f"{home}.own" and not (Path(services) / "secrets").exists()
        files = sorted((Path(folder) / "secrets").iterdir())
        assert {file.name: file.stat().st_size for file in files} == dict.fromkeys((f.name for f in files), 0)
        assert len(files) >= 2
    assert hosts.leftovers() == []
    hosts.ok("down", "--volumes")
    for host in (A, B):
        assert hosts.engines[host].docker("volume", "ls", "-q", "--filter", "label=emp.fleet").strip() == ""
