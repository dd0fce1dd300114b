"""The testbed itself: an engine of our own, reached from a container, with Compose, and all of it gone at the end."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from support.docker.engine import BASE, Engine


def test_a_container_runs_and_reaches_this_host(engine: Engine) -> None:
    with socket.create_server((engine.gateway, 0)) as listening:
        port = listening.getsockname()[1]
        ask = f"import socket; socket.create_connection(('host.docker.internal', {port}), 10)"
        gateway = ["--add-host", "host.docker.internal:host-gateway"]
        engine.docker("run", "--rm", *gateway, BASE, "python3", "-c", ask)


def test_compose_takes_a_file(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"name": "bed", "services": {"one": {"image": BASE, "command": ["sleep", "1000"]}}}))
    compose = ("compose", "-f", str(file))
    engine.docker(*compose, "up", "--detach", "--wait")
    (one,) = engine.docker(*compose, "ps", "-q").split()
    assert engine.status(one) == "running"
    engine.docker(*compose, "down", "--timeout", "0")
    assert engine.status(one) == ""


def test_the_engine_restarts_with_what_it_knew(engine: Engine) -> None:
    name = engine.docker("run", "--detach", "--restart", "always", "--init", BASE, "sleep", "1000").strip()
    engine.stop()
    engine.start()
    assert engine.inspect(name)["RestartCount"] == 0
    assert engine.status(name) == "running"
    engine.docker("rm", "-f", name)
