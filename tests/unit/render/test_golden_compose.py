"""The rendered compose.yaml files as text, and what they say.

`EMP_UPDATE_GOLDEN=1 pytest tests/unit/render/test_golden_compose.py` rewrites golden/compose-*.yaml: read the diff.
tests/docker has Compose itself read them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from emp_orch import __version__
from emp_orch.fleet.model.fleet import GpuKind, Gpus, Limits, ServiceName, Stop, Volume, WorkerSpec
from support.docker.compose import container, control_text, placed, placed_control, read, text
from support.fleet.fleets import COMFYUI, SIMULATION, service
from support.tree import TESTS

GOLDEN = TESTS / "golden"

TWO = [
    placed(
        container(
            name, services=[SIMULATION, COMFYUI], num_gpus=2, port_offset=offset, publish=(ServiceName("comfyui"),)
        ),
        api=True,
    )
    for name, offset in (("farm-1", 0), ("farm-2", 100))
]
GPUS = placed(
    container(
        "gpu-box",
        services=[service("slow", stop=Stop(signal="INT", timeout_s=12.5))],
        num_gpus=2,
        gpus=Gpus(kind=GpuKind.NVIDIA, ids=("3", "1")),
        host="gpu-a",
        image="registry.example.com/machine:1.4",
        volumes=(
            Volume(source="/srv/models", target="/models", read_only=True),
            Volume(source='/srv/$HOME/it\'s "odd"', target="/out put", read_only=False),
        ),
        limits=Limits(memory_bytes=64 * 2**30, shm_bytes=8 * 2**30, cpus=7.5),
        worker=WorkerSpec(capabilities={}, drain_timeout_s=90.0, job_timeout_s=600.0),
    ),
    redis_url="rediss://hub.example.com:6379/1",
    prefix="farm:",
    artifacts_url="s3://renders/farm-a",
    secrets=None,
    artifacts=None,
)
ODD = [placed(container(name)) for name in ("1", "x-1", "true", "null", "0x1f")]

TEXTS = {
    "compose-published": text(*TWO),
    "compose-gpus": text(GPUS, fleet="farm", project="emp-farm-0123"),
    "compose-names": text(*ODD),
}
EMBEDDED = placed_control()
OUTSIDE = placed_control(
    root="/srv/it's $HOME",
    user="0:0",
    image="registry.example.com/control:1",
    redis=(),
    addresses={"api": ("10.0.0.1", 80), "monitor": ("::1", 81)},
    mounts=("/srv/artifacts",),
)
CONTROL = {"compose-control-embedded": control_text(EMBEDDED), "compose-control-redis-elsewhere": control_text(OUTSIDE)}


@pytest.mark.parametrize("name", TEXTS | CONTROL)
def test_text_is_as_recorded(name: str) -> None:
    file, made = GOLDEN / f"{name}.yaml", (TEXTS | CONTROL)[name]
    if os.environ.get("EMP_UPDATE_GOLDEN") == "1":
        file.write_text(made, encoding="utf-8")
    assert made == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {f.stem for f in GOLDEN.glob("compose-*.yaml")} == set(TEXTS | CONTROL)


def test_names_that_yaml_would_take_for_something_else() -> None:
    document = read(TEXTS["compose-names"])
    assert list(document["services"]) == ["1", "x-1", "true", "null", "0x1f"]
    assert list(document["volumes"]) == [v for name in document["services"] for v in (name, f"{name}.own")]


@pytest.mark.parametrize("name", TEXTS)
def test_every_container_is_confined(name: str) -> None:
    for confined in read(TEXTS[name])["services"].values():
        assert confined["cap_drop"] == ["ALL"]
        assert confined["security_opt"] == ["no-new-privileges:true"]
        assert (confined["read_only"], confined["init"], confined["user"]) == (True, True, "1000:1000")
        assert confined["restart"] == "unless-stopped"
        assert set(confined["logging"]["options"]) == {"max-size", "max-file"}
        assert all(port.startswith("127.0.0.1:") for port in confined.get("ports", []))
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices", "command", "entrypoint"} & set(confined)


def test_what_a_container_is_told() -> None:
    first = read(TEXTS["compose-published"])["services"]["farm-1"]
    assert first["environment"] == {
        "MACHINE_ID": "farm-1",
        "NUM_GPUS": "2",
        "HUB_REDIS_URL": "redis://host.docker.internal:6380/0",
        "HUB_REDIS_URL_FILE": "/run/secrets/hub_redis_url",
        "REDIS_URL": "redis://host.docker.internal:6380/0",
        "EMP_REDIS_PREFIX": "",
        "EMP_ARTIFACTS_URL": "file:///srv/fleet/.emp/artifacts",
        "EMP_SECRETS": "/run/secrets/secrets.json",
        "EMP_ORDERS": "/run/secrets/orders.json",
        "EMP_API": "/run/secrets/api.json",
    }
    assert first["ports"] == ["127.0.0.1:8188:8188", "127.0.0.1:8189:8189"]
    assert first["labels"] == {
        "emp.fleet": "f",
        "emp.folder": "0123456789ab",
        "emp.root": "",
        "emp.machine": "farm-1",
        "emp.generation": "3",
        "emp.config": TWO[0].digest,
        "emp.container": first["labels"]["emp.container"],
        "emp.image": f"emp-machine:{__version__}",
        "emp.image-id": "",
    }
    assert first["container_name"] == "emp-f-farm-1"


def test_secrets_are_files_of_the_host_or_lie_in_the_volume() -> None:
    document = read(TEXTS["compose-published"])
    mounted = document["services"]["farm-2"]["secrets"]
    files = {s["target"]: document["secrets"][s["source"]]["file"] for s in mounted}
    folder = "/srv/fleet/.emp/hosts/local/secrets"
    assert files == {name: f"{folder}/{name}" for name in ("hub_redis_url", "secrets.json", "orders.json", "api.json")}
    elsewhere = read(TEXTS["compose-gpus"])
    assert "secrets" not in elsewhere
    environment = elsewhere["services"]["gpu-box"]["environment"]
    assert environment["HUB_REDIS_URL_FILE"] == "/var/lib/emp-own/secrets/hub_redis_url"
    assert environment["EMP_SECRETS"] == "/var/lib/emp-own/secrets/secrets.json"


def test_gpus_limits_volumes_and_the_time_to_stop() -> None:
    box: dict[str, Any] = read(TEXTS["compose-gpus"])["services"]["gpu-box"]
    resources = box["deploy"]["resources"]
    assert resources["limits"] == {"memory": str(64 * 2**30), "cpus": "7.5", "pids": 16384}
    assert box["memswap_limit"] == str(64 * 2**30)
    assert resources["reservations"]["devices"] == [
        {"driver": "nvidia", "capabilities": ["gpu"], "device_ids": ["3", "1"]}
    ]
    assert box["shm_size"] == str(8 * 2**30)
    home, own, models, odd = box["volumes"]
    assert own == {"type": "volume", "source": "gpu-box.own", "target": "/var/lib/emp-own"}
    assert home == {"type": "volume", "source": "gpu-box", "target": "/var/lib/emp"}
    assert (models["source"], models["target"], models["read_only"]) == ("/srv/models", "/models", True)
    assert (odd["source"], odd["target"], odd["read_only"]) == ('/srv/$HOME/it\'s "odd"', "/out put", False)
    # A drain of 90 s with its margin of 5, the slowest service, and a minute for what must be killed.
    assert box["stop_grace_period"] == f"{90 + 5 + 13 + 60}s"


def test_only_images_of_others_are_pulled() -> None:
    assert read(TEXTS["compose-published"])["services"]["farm-1"]["pull_policy"] == "never"
    assert read(TEXTS["compose-gpus"])["services"]["gpu-box"]["pull_policy"] == "missing"


def test_the_parts_of_a_control_plane() -> None:
    parts = read(CONTROL["compose-control-embedded"])["services"]
    assert list(parts) == ["redis", "api", "reconcile", "monitor", "eventlog"]
    assert parts["redis"]["command"] == [*EMBEDDED.redis, "--logfile", "/srv/fleet/logs/redis.log"]
    assert [p["command"] for n, p in parts.items() if n != "redis"] == [
        ["-C", "/srv/fleet", "control", "--part", n] for n in ("api", "reconcile", "monitor", "eventlog")
    ]
    for part in parts.values():
        assert (part["network_mode"], part["read_only"], part["cap_drop"]) == ("host", True, ["ALL"])
        # What lies in the fleet's folder names other things in it by their paths.
        assert all(b["source"] == b["target"] for b in part["volumes"])
    assert [n for n, p in parts.items() if "depends_on" in p] == ["api", "reconcile", "monitor", "eventlog"]


def test_only_the_reconciler_has_the_engine_and_only_as_root_what_roots_files_need() -> None:
    for name, caps in (("compose-control-embedded", None), ("compose-control-redis-elsewhere", True)):
        parts = read(CONTROL[name])["services"]
        with_engine = [n for n, p in parts.items() if any(b["source"].endswith("docker.sock") for b in p["volumes"])]
        assert with_engine == [n for n, p in parts.items() if "group_add" in p] == ["reconcile"]
        assert [n for n, p in parts.items() if "cap_add" in p] == (["reconcile"] if caps else [])
    assert "redis" not in read(CONTROL["compose-control-redis-elsewhere"])["services"]
