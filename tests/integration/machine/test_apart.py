"""Services behind their fence: whichever way supervisord starts them, and where the kernel has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch.machine.apart import HIDDEN, SERVICES_FOLDER, hidden
from emp_orch.procident import alive
from support.host.seccomp import LANDLOCK
from support.machine.supervision import Bare
from support.stack.stack import until
from support.tree import TESTS

SPEAKS = """
import os, signal, socket, sys
if "orphan" in sys.argv and os.fork():
    os.wait()
    signal.pause()  # what it began ends with it
if "orphan" in sys.argv and os.fork():
    os._exit(0)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    said = s.recv(100)
except ConnectionError:
    said = b""
print(f"it said {said}", flush=True)
"""


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    with Bare(tmp_path / "bare") as bare:
        (tmp_path / "home/machine").mkdir(parents=True)
        (tmp_path / "secret").write_text("canary")
        yield bare


def apart(folder: Path) -> dict[str, str]:
    return {SERVICES_FOLDER: str(folder / "home/machine"), HIDDEN: json.dumps([str(folder / "secret")])}


@pytest.mark.parametrize("options", ["", "directory=/"], ids=["by the gate", "by a fork"])
def test_a_service_stands_behind_it_whichever_way_it_starts(bare: Bare, tmp_path: Path, options: str) -> None:
    asks = f"pwd; cat {tmp_path}/secret; echo ended with $?; touch here; exec sleep 1000"
    bare.program("service", "/bin/sh", "-c", asks, options=options)
    bare.start(**apart(tmp_path))
    until("its words", lambda: "ended with" in bare.log(), shown=bare.log)
    assert "Permission denied" in bare.log() and "ended with 1" in bare.log()
    assert "canary" not in bare.log()
    assert f"{tmp_path}/home/machine\n" in bare.log()
    until("its file", (tmp_path / "home/machine/here").exists)
    assert alive(bare.main("service")), "emp itself sees it and ends it as before"
    bare.supervisor._call("stopProcess", "service")
    assert bare.end() == 0


@pytest.mark.parametrize("how", [(), ("orphan",)])
def test_a_service_does_not_command_supervisord(bare: Bare, tmp_path: Path, how: tuple[str, ...]) -> None:
    bare.program("service", sys.executable, "-c", SPEAKS, str(bare.root / "supervisor.sock"), *how)
    bare.start(**apart(tmp_path))
    until("its words", lambda: "it said b" in bare.log(), shown=bare.log)
    assert "it said b''" in bare.log()
    assert "was refused at supervisor.sock" in bare.log()
    bare.supervisor._call("getState")


def test_where_services_are_not_apart_supervisord_hears_everybody(bare: Bare) -> None:
    bare.program("service", sys.executable, "-c", SPEAKS, str(bare.root / "supervisor.sock"))
    bare.start()
    until("its words", lambda: "it said b'HTTP" in bare.log(), shown=bare.log)


@pytest.mark.parametrize(("filtered", "code", "said"), [(False, 1, ""), (True, 0, "canary")])
def test_without_landlock_a_service_starts_as_before(tmp_path: Path, *, filtered: bool, code: int, said: str) -> None:
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "home/machine").mkdir(parents=True)
    shut = f"from support.host import seccomp; seccomp.refuse({LANDLOCK[0]}, {LANDLOCK[1]})\n" if filtered else ""
    begin = "import os, sys; from emp_orch.machine import launch; sys.exit(launch.begin(sys.argv[1:], os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", shut + begin, "service", "--", "cat", str(tmp_path / "secret")],
        env={**os.environ, **apart(tmp_path), "EMP_RUN_DIR": str(tmp_path), "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_what_is_hidden(tmp_path: Path) -> None:
    """Not what lies where services make things: they would not reach what they make there."""
    given = {
        SERVICES_FOLDER: "/var/lib/emp/machine",
        "HUB_REDIS_URL_FILE": "/run/secrets/hub_redis_url",
        "EMP_SECRETS": "/somewhere/secrets.json",
        "EMP_ORDERS": "/var/lib/emp/secrets/orders.json",
        "EMP_ARTIFACTS_URL": "file:///proc/1/artifacts",
    }

    def told(**changes: str) -> set[str]:
        found = hidden({**given, **changes}, folder="/var/lib/emp-own/machine", logs="/var/log/emp")
        return set(json.loads(found[HIDDEN]))

    always = {"/var/lib/emp-own/machine", "/var/log/emp", "/run/secrets", "/run/secrets/hub_redis_url"}
    always.add("/somewhere/secrets.json")
    for store in (f"file://{tmp_path}/artifacts", "api://", "s3://bucket/x", "file:///var/lib/emp/artifacts"):
        assert told(EMP_ARTIFACTS_URL=store) == always
    assert hidden({}, folder="/a", logs="/b") == {}
