"""Compose itself reads every golden file, and reads from it what emp meant. It needs no engine for that."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from emp_orch.fleet.model.fleet import GpuKind, Gpus, Volume
from support.docker.compose import container, placed, read, text
from support.tree import TESTS

GOLDEN = TESTS / "golden"


def compose_missing() -> str:
    """Why Compose v2 cannot be asked; empty when it can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return "" if asked.returncode == 0 else "docker has no Compose v2"


pytestmark = pytest.mark.skipif(bool(compose_missing()), reason=compose_missing() or "Compose is there")


def config(file: Path) -> dict[str, Any]:
    argv = ["docker", "compose", "--file", str(file), "config", "--format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


CONTROL = sorted(GOLDEN.glob("compose-control-*.yaml"))
MACHINES = sorted(set(GOLDEN.glob("compose-*.yaml")) - set(CONTROL))


@pytest.mark.parametrize("file", CONTROL, ids=lambda f: f.stem)
def test_compose_accepts_the_control_plane(file: Path) -> None:
    meant, understood = read(file.read_text()), config(file)
    assert sorted(understood["services"]) == sorted(meant["services"])
    for name, part in meant["services"].items():
        got = understood["services"][name]
        for key in ("image", "user", "network_mode", "entrypoint", "cap_drop", "cap_add", "group_add"):
            assert got.get(key) == part.get(key), key
        # What is printed is a compose file again, with `$` written as `$$`.
        assert {k: v.replace("$$", "$") for k, v in got["labels"].items()} == part["labels"]
        assert [w.replace("$$", "$") for w in got["command"]] == part["command"]
        assert got.get("healthcheck", {}).get("test") == part.get("healthcheck", {}).get("test")


@pytest.mark.parametrize("file", MACHINES, ids=lambda f: f.stem)
def test_compose_accepts(file: Path) -> None:
    meant, understood = read(file.read_text()), config(file)
    assert understood["name"] == meant["name"]
    assert list(understood["services"]) == sorted(meant["services"])
    for machine_id, service in meant["services"].items():
        got = understood["services"][machine_id]
        for key in ("container_name", "image", "pull_policy", "user", "environment", "labels", "cap_drop", "restart"):
            assert got[key] == service[key], key
        assert (got["init"], got["read_only"], got["security_opt"]) == (True, True, service["security_opt"])
        assert [f"{p['host_ip']}:{p['published']}:{p['target']}" for p in got.get("ports", [])] == service.get(
            "ports", []
        )
        assert [(v["type"], v["target"]) for v in got["volumes"]] == [
            (v["type"], v["target"]) for v in service["volumes"]
        ]
        assert {v["name"]: v["labels"] for v in understood["volumes"].values()} == {
            v["name"]: v["labels"] for v in meant["volumes"].values()
        }


def test_compose_reads_odd_values_as_they_are(tmp_path: Path) -> None:
    odd = "$HOME ${A:-b} $$ \"x\" 'y' \\n # : {} 🙂 ü"
    m = container(
        num_gpus=2,
        gpus=Gpus(kind=GpuKind.NVIDIA, ids=("1", "GPU-$x")),
        volumes=(Volume(source=f"/srv/{odd}", target="/odd", read_only=True),),
    )
    file = tmp_path / "compose.yaml"
    secrets = f"/srv/{odd}"
    file.write_text(text(placed(m, prefix=odd, redis_url=odd, artifacts_url=odd, secrets=secrets, artifacts=secrets)))
    document = config(file)
    got = document["services"]["m"]
    # What it prints is a compose file again, with `$` written as `$$`.
    wanted = odd.replace("$", "$$")
    assert {got["environment"][k] for k in ("EMP_REDIS_PREFIX", "REDIS_URL", "EMP_ARTIFACTS_URL")} == {wanted}
    assert [v["source"] for v in got["volumes"]] == ["m", "m.own", f"/srv/{wanted}", f"/srv/{wanted}"]
    assert {s["file"] for s in document["secrets"].values()} == {
        f"/srv/{wanted}/hub_redis_url",
        f"/srv/{wanted}/secrets.json",
        f"/srv/{wanted}/orders.json",
    }
    (devices,) = got["deploy"]["resources"]["reservations"]["devices"]
    assert devices["device_ids"] == ["1", "GPU-$$x"]
