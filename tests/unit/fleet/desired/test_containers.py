"""What changes a container, and what is made in place."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.fleet.desired.containers import container_hash
from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import GpuKind, Gpus, Limits, ProgramName, ServiceName, Volume, WorkerSpec
from emp_orch.images import MACHINE_IMAGE, built_here
from support.docker.compose import container
from support.fleet.fleets import COMFYUI, SIMULATION, one, service

SERVICES = [SIMULATION, COMFYUI]
PUBLISHED = (ServiceName("comfyui"),)
NVIDIA = Gpus(kind=GpuKind.NVIDIA, ids=())


def made(**changes: Any) -> DesiredMachine:
    return container(**{"services": SERVICES, "num_gpus": 2, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"num_gpus": 4},
        {"num_gpus": 0},
        {"services": [SIMULATION]},
        {"services": [*SERVICES, service("more", port=9000)]},
        {"env": {"A": "b"}},
        {"labels": {"site": "a"}},
        {"health_port": 9999},
        {"ports": {"comfyui": 9188}},
        {"worker": WorkerSpec(capabilities={"x": 1}, drain_timeout_s=1.0, job_timeout_s=1.0)},
    ],
    ids=str,
)
def test_what_is_made_in_place(changes: dict[str, Any]) -> None:
    before, after = made(), made(**changes)
    assert container_hash(before) == container_hash(after)
    assert config_hash(before) != config_hash(after)


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "gpu-a"},
        {"image": "other:1"},
        {"gpus": NVIDIA},
        {"publish": PUBLISHED},
        {"volumes": (Volume(source="/a", target="/b", read_only=True),)},
        {"limits": Limits(memory_bytes=2**30)},
    ],
    ids=str,
)
def test_what_needs_a_new_container(changes: dict[str, Any]) -> None:
    before, after = made(), made(**changes)
    assert container_hash(before) != container_hash(after)
    assert config_hash(before) != config_hash(after)


@pytest.mark.parametrize("also", [{"gpus": NVIDIA}, {"publish": PUBLISHED}], ids=str)
def test_reserved_gpus_and_published_ports_tie_num_gpus_to_the_container(also: dict[str, Any]) -> None:
    assert container_hash(made(**also)) != container_hash(made(num_gpus=3, **also))


def test_a_published_service_that_does_not_grow_ties_nothing() -> None:
    also: dict[str, Any] = {"publish": (ServiceName("simulation"),)}
    assert container_hash(made(**also)) == container_hash(made(num_gpus=3, **also))


def test_a_process_is_no_container() -> None:
    m = one(SERVICES, publish=PUBLISHED)
    assert (m.container, container_hash(m)) == (None, "")


def test_what_a_container_is_when_nothing_is_said() -> None:
    c = made().container
    assert c is not None
    assert (c.host, c.image, c.publish, c.gpus, c.volumes) == ("local", MACHINE_IMAGE, (), (), ())


def test_published_are_the_ports_of_every_slot() -> None:
    c = made(publish=(ServiceName("comfyui"), ServiceName("simulation")), port_offset=100).container
    assert c is not None
    assert c.publish == (8288, 8289, 8399)


def test_builtin_services_listen_where_docker_can_reach_them_only_when_published() -> None:
    def words(m: DesiredMachine, name: str) -> tuple[str, ...]:
        program = m.program(ProgramName(name))
        assert program is not None
        return program.argv

    m = made(publish=PUBLISHED)
    assert words(m, "comfyui-gpu1")[:6] == ("@emp", "simulate", "--host", "0.0.0.0", "--port", "8189")
    assert "--host" not in words(m, "simulation")
    assert "--host" not in words(made(), "comfyui-gpu1")
    assert "--host" not in words(one(SERVICES, publish=PUBLISHED), "comfyui-gpu0")


@pytest.mark.parametrize(
    ("ids", "inside"),
    [
        ((), ["0", "1", "2"]),
        (("5", "3", "10"), ["1", "0", "2"]),
        (("GPU-c", "GPU-a", "GPU-b"), ["GPU-c", "GPU-a", "GPU-b"]),
    ],
)
def test_devices_are_numbered_anew_inside(ids: tuple[str, ...], inside: list[str]) -> None:
    m = made(num_gpus=3, gpus=Gpus(kind=GpuKind.NVIDIA, ids=ids))
    assert m.container is not None
    assert m.container.gpus == (ids or ("0", "1", "2"))
    workers = [m.program(ProgramName(f"redis-worker-gpu{slot}")) for slot in range(3)]
    assert [w.env["CUDA_VISIBLE_DEVICES"] for w in workers if w] == inside


@pytest.mark.parametrize(
    ("image", "here"),
    [
        (MACHINE_IMAGE, True),
        ("emp-machine", True),
        ("emp-machine@sha256:0", True),
        ("emp-machine-of-mine:1", False),
        ("registry.example.com/emp-machine:1", False),
        ("localhost:5000/emp-machine", False),
    ],
)
def test_images_that_no_registry_has(image: str, here: bool) -> None:
    assert built_here(image) is here
