"""What another user of the control host gets at: files, sockets, processes, ports, names in shared folders."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from emp_orch.control.plane.embedded_login import kept_password
from emp_orch.errors import EmpError
from emp_orch.runtimes.process.supervisor import Supervisor
from support.stack.stack import MACHINE, Stack, until

TOKEN, CANARY = "token-of-this-test-0123456789", "canary-of-this-test-0123456789"
WORDS = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]

LOOK = """
import json, os, signal, socket, sys
root, pids = sys.argv[1], json.loads(sys.argv[2])
said = {"read": [], "entered": [], "connected": [], "proc": [], "signalled": [], "written": []}
for folder, _, names in os.walk(root):
    said["entered"].append(folder)
    for name in names:
        path = os.path.join(folder, name)
        try:
            open(path, "rb").close()
            said["read"].append(path)
        except OSError:
            pass
    try:
        open(os.path.join(folder, "nobodys"), "x").close()
        said["written"].append(folder)
    except OSError:
        pass
for where in (".emp/control", *(f".emp/machines/{m}" for m in json.loads(sys.argv[3]))):
    for name in ("supervisor.sock", "redis.sock"):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(os.path.join(root, where, name))
                said["connected"].append(where)
            except OSError:
                pass
for pid in pids:
    for name in ("environ", "mem", "maps", "auxv", "stack"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if file.read(1):
                    said["proc"].append(f"{pid}/{name}")
        except OSError:
            pass
    for name in ("fd", "cwd/.", "root/proc", "task"):
        if name == "task":
            continue
        try:
            os.listdir(f"/proc/{pid}/{name}")
            said["proc"].append(f"{pid}/{name}")
        except OSError:
            pass
    try:
        os.kill(pid, signal.SIGCONT)
        said["signalled"].append(pid)
    except OSError:
        pass
print(json.dumps(said))
"""
ASK = """
import http.client, json, sys
said = []
for port, method, path, headers in json.loads(sys.argv[1]):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    c.request(method, path, "{}" if method == "POST" else None, {"Content-Type": "application/json", **headers})
    said.append([method, path, c.getresponse().status])
    c.close()
print(json.dumps(said))
"""
# Takes a port, and writes down what it is told by whoever comes; it answers nobody well.
SQUAT = """
import socket, sys, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen(64)
print("listens", flush=True)
def hear(c):
    try:
        c.settimeout(2)
        for _ in range(4):
            data = c.recv(65536)
            if not data:
                return
            print("told", data, flush=True)
            c.sendall(b"+OK\\r\\n")
    except OSError:
        pass
    finally:
        c.close()
while True:
    c, _ = s.accept()
    print("came", flush=True)
    threading.Thread(target=hear, args=(c,), daemon=True).start()
"""


def as_nobody(script: str, *args: str) -> Any:
    words = [*WORDS, "/usr/bin/env", "python3", "-c", script, *args]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """In a folder that everybody can enter, as a home folder or /srv is; with a token, and a secret of a service."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="emp-test-"))
    folder.chmod(0o755)
    made = Stack(folder / "fleet")
    text = made.file.read_text()
    api = f"port: {made.ports['api']}"
    assert f"{api}}}" in text
    text = text.replace(api, f"{api}, token: {{env: EMP_TOKEN}}", 1)
    service = "  simulation:\n"
    assert service in text
    made.file.write_text(text.replace(service, f"{service}    env: {{CANARY: {{env: CANARY}}}}\n", 1))
    os.environ.update(EMP_TOKEN=TOKEN, CANARY=CANARY)
    before = os.umask(0o022)
    try:
        made.up()
        yield made
    finally:
        os.umask(before)
        made.run("down")
        for name in ("EMP_TOKEN", "CANARY"):
            os.environ.pop(name)
        left = made.leftovers()
        shutil.rmtree(folder)
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def secrets(stack: Stack) -> list[str]:
    machines = (stack.layout.machine(MACHINE) / "hub_redis_url").read_text().strip()
    found = [TOKEN, CANARY, kept_password(stack.layout), urlsplit(machines).password or ""]
    assert all(found)
    return found


def pids(stack: Stack) -> list[int]:
    found = stack.running("")
    assert len(found) > 8
    return found


@pytest.fixture(scope="module")
def seen(stack: Stack) -> dict[str, Any]:
    stack.ok("submit", "simulation", "--wait")
    found: dict[str, Any] = as_nobody(LOOK, str(stack.root), json.dumps(pids(stack)), json.dumps([MACHINE]))
    return found


def test_he_reads_emp_yaml_and_nothing_else(stack: Stack, seen: dict[str, Any]) -> None:
    assert [Path(path).name for path in seen["read"]] == ["emp.yaml"]
    assert seen["entered"] == [str(stack.root)] and seen["written"] == []


def test_he_reaches_no_socket(seen: dict[str, Any]) -> None:
    assert seen["connected"] == []


def test_he_sees_of_a_process_no_more_than_its_command_and_sends_it_nothing(stack: Stack, seen: dict[str, Any]) -> None:
    assert seen["proc"] == [] and seen["signalled"] == []
    shown = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids(stack) for name in ("cmdline", "comm")]
    assert not [text for text in shown for secret in secrets(stack) if secret.encode() in text]


def test_no_port_of_the_control_plane_lets_him_in(stack: Stack) -> None:
    api, page = stack.ports["api"], stack.ports["monitor"]
    asked: list[tuple[int, str, str, dict[str, str]]] = [
        (port, method, path, {})
        for port in (api, page)
        for method, path in (
            *(("GET", "/api/monitor/state"), ("GET", "/api/jobs"), ("GET", "/api/logs/api"), ("GET", "/openapi.json")),
            *(("POST", "/api/jobs"), ("POST", "/api/reconcile/pause"), ("GET", "/api/events/monitor")),
        )
    ]
    asked += [(api, "GET", "/api/jobs", {"Authorization": "Bearer "}), (api, "GET", "/api/jobs?token=", {})]
    said = as_nobody(ASK, json.dumps(asked))
    assert {status for *_, status in said} <= {401, 403, 404}, said
    assert [s for _, path, s in said if path == "/api/jobs"] == [401] * 5, said


def test_what_is_made_in_shared_folders_has_no_name_that_he_could_take_before(stack: Stack) -> None:
    """Open files outside of the fleet's folder, in folders that everybody writes: none is found by a name."""
    shared = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")
    found = set()
    for pid in pids(stack):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith(shared) and not target.startswith(str(stack.root)) and "(deleted)" not in target:
                found.add(target)
    assert not found


# --- a port that he takes while its owner is away


@contextmanager
def squatting(port: int, told: Path) -> Iterator[None]:
    with told.open("w") as out:
        squatter = subprocess.Popen([*WORDS, "/usr/bin/env", "python3", "-c", SQUAT, str(port)], stdout=out, cwd="/")
        try:
            until("he listens", lambda: "listens" in told.read_text())
            yield
        finally:
            squatter.kill()
            squatter.wait()


def away(stack: Stack, part: str) -> None:
    asyncio.run(Supervisor(stack.layout.control).call("stopProcess", part, True))


def back(stack: Stack, part: str) -> None:
    """It may have been begun again by itself meanwhile."""
    with suppress(EmpError):
        asyncio.run(Supervisor(stack.layout.control).call("startProcess", part, True))
    until(f"{part} is back", lambda: stack.control(part))


def test_who_takes_redis_port_is_told_no_password(stack: Stack, tmp_path: Path) -> None:
    told, wanted = tmp_path / "told", secrets(stack)
    away(stack, "redis")
    try:
        with squatting(stack.ports["redis"], told):
            until("all came", lambda: told.read_text().count("came") > 12)
            said = stack.run("status")
            assert said.returncode == 2 and "another user of this host (uid 65534)" in said.stdout, said
            doctor = stack.run("doctor")
            assert "another user" in doctor.stdout, f"{doctor.stdout}{doctor.stderr}"
    finally:
        back(stack, "redis")
    assert not [secret for secret in wanted if secret in told.read_text()], told.read_text()
    assert "AUTH" not in told.read_text() and "HELLO" not in told.read_text()
    until("all is as before", lambda: stack.run("status").returncode == 0)
    stack.until_in_sync()


def test_who_takes_the_apis_port_is_told_no_token(stack: Stack, tmp_path: Path) -> None:
    told, wanted = tmp_path / "told", secrets(stack)
    away(stack, "api")
    try:
        with squatting(stack.ports["api"], told):
            by_the_page = (stack.ports["monitor"], "GET", "/api/jobs", {"Authorization": f"Bearer {TOKEN}"})
            as_nobody(ASK, json.dumps([by_the_page]))
            until("the log of events came", lambda: "another user" in (stack.layout.logs / "eventlog.log").read_text())
            doctor = stack.run("doctor")
            assert "another user" in doctor.stdout, f"{doctor.stdout}{doctor.stderr}"
    finally:
        back(stack, "api")
    assert not [secret for secret in wanted if secret in told.read_text()], told.read_text()
    until("all is as before", lambda: stack.run("status").returncode == 0)
