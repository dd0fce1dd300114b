"""Fleet → what each machine runs, program by program."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.desired.machines import config_hash, desired_machines
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram
from emp_orch.fleet.model.fleet import (
    Checkout,
    DockerHost,
    GpuKind,
    Gpus,
    MachineId,
    ModelSection,
    ProgramName,
    Scale,
    SecretRef,
    Service,
    ServiceName,
    Stop,
    Volume,
    WorkerSpec,
)
from emp_orch.fleet.model.ids import machine_of, worker_id, worker_program
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.worker.config import ServiceBinding, parse_binding, with_options
from support.fleet.fleets import COMFYUI, HEALTH, SETUP, SIMULATION, fleet, install, machine, one, service


def text(m: DesiredMachine) -> str:
    return "\n".join(line(p) for p in m.programs)


def line(p: DesiredProgram) -> str:
    parts = [f"{p.name} [{p.kind}]", " ".join(p.argv)]
    parts += [f"port {p.port}"] if p.port is not None else []
    parts += [" ".join(f"{k}={v}" for k, v in p.env.items())] if p.env else []
    parts += [f"cwd {p.cwd}"] if p.cwd is not None else []
    parts += [f"creates {p.creates}"] if p.creates is not None else []
    parts += [f"health {p.health.http}"] if p.health is not None else []
    parts += [f"after {' '.join(p.after)}"] if p.after else []
    return "; ".join(parts)


def get(m: DesiredMachine, name: str) -> DesiredProgram:
    found = m.program(ProgramName(name))
    assert found is not None, f"{name} is not in\n{text(m)}"
    return found


def test_the_default_machine() -> None:
    assert text(one([SIMULATION, COMFYUI], num_gpus=2)) == (
        "shared-setup [setup]; @emp machine-setup\n"
        "simulation-installer [installer]; @emp simulate --prepare --dir data/simulation; after shared-setup\n"
        "comfyui-installer [installer]; @emp simulate --prepare --dir data/comfyui; after shared-setup\n"
        "simulation [service]; @emp simulate --port 8299 --dir data/simulation; port 8299; after simulation-installer\n"
        "comfyui-gpu0 [service]; @emp simulate --port 8188 --dir data/comfyui-gpu0 --gpu 0; port 8188; "
        "CUDA_VISIBLE_DEVICES=0 EMP_GPU_SLOT=0; health /system_stats; after comfyui-installer\n"
        "comfyui-gpu1 [service]; @emp simulate --port 8189 --dir data/comfyui-gpu1 --gpu 1; port 8189; "
        "CUDA_VISIBLE_DEVICES=1 EMP_GPU_SLOT=1; health /system_stats; after comfyui-installer\n"
        "redis-worker-gpu0 [worker]; @emp worker --machine m --gpu 0 "
        "--service simulation=simulation@http://127.0.0.1:8299 --service comfyui=comfyui@http://127.0.0.1:8188 "
        "--capabilities {} --drain-timeout 30 --job-timeout 600 --lease-ttl 30; CUDA_VISIBLE_DEVICES=0 EMP_GPU_SLOT=0; "
        "after shared-setup\n"
        "redis-worker-gpu1 [worker]; @emp worker --machine m --gpu 1 "
        "--service simulation=simulation@http://127.0.0.1:8299 --service comfyui=comfyui@http://127.0.0.1:8189 "
        "--capabilities {} --drain-timeout 30 --job-timeout 600 --lease-ttl 30; CUDA_VISIBLE_DEVICES=1 EMP_GPU_SLOT=1; "
        "after shared-setup"
    )


def test_a_real_comfyui() -> None:
    checkout = Checkout(
        path="/opt/ComfyUI",
        python="/opt/python",
        args=("--cpu", "gpu ${gpu} at ${port} of ${machine_id}"),
        model_folders=("/srv/models", "/srv/more"),
        model_sections=(ModelSection(name="a", paths=(("base_path", "/b"), ("is_default", True), ("vae", "v\nw"))),),
    )
    comfyui = service(
        "render",
        scale=Scale.PER_GPU,
        builtin="comfyui",
        port=8188,
        connector="comfyui",
        cwd="/w/${gpu}",
        checkout=checkout,
    )
    m = one([comfyui], num_gpus=2)
    assert get(m, "render-installer").argv == (
        *("@emp", "comfyui", "--check", "--path", "/opt/ComfyUI", "--python", "/opt/python"),
    )
    gpu1 = get(m, "render-gpu1")
    assert gpu1.argv == (
        *("@emp", "comfyui", "--path", "/opt/ComfyUI", "--python", "/opt/python"),
        *("--port", "8189", "--dir", "data/render-gpu1", "--cwd", "/w/1"),
        *("--model-folder", "/srv/models", "--model-folder", "/srv/more"),
        *("--model-paths", '{"a":{"base_path":"/b","is_default":true,"vae":"v\\nw"}}'),
        *("--", "--cpu", "gpu 1 at 8189 of m"),
    )
    assert gpu1.cwd is None
    assert gpu1.env == {"CUDA_VISIBLE_DEVICES": "1", "EMP_GPU_SLOT": "1"}
    assert "render=comfyui@http://127.0.0.1:8189" in get(m, "redis-worker-gpu1").argv


def test_a_real_comfyui_in_few_words() -> None:
    comfyui = service("comfyui", builtin="comfyui", port=8188, checkout=Checkout(path="/opt/ComfyUI"))
    m = one([comfyui])
    assert get(m, "comfyui").argv == (
        *("@emp", "comfyui", "--path", "/opt/ComfyUI", "--port", "8188", "--dir", "data/comfyui"),
    )
    published = one([comfyui], runtime=RuntimeKind.COMPOSE, publish=(ServiceName("comfyui"),))
    assert get(published, "comfyui").argv[4:6] == ("--host", "0.0.0.0")
    own = one([structs.replace(comfyui, install=install("git", "clone", "x", creates="/opt/ComfyUI"))])
    assert get(own, "comfyui-installer").argv == ("git", "clone", "x")


def test_no_gpu_no_worker_and_no_per_gpu_program() -> None:
    assert text(one([COMFYUI], num_gpus=0)) == (
        "shared-setup [setup]; @emp machine-setup\n"
        "comfyui-installer [installer]; @emp simulate --prepare --dir data/comfyui; after shared-setup"
    )


def test_a_set_up_step() -> None:
    assert line(get(one([SETUP]), "prepare")) == "prepare [installer]; prepare m; after shared-setup"


REAL = service(
    "comfyui",
    scale=Scale.PER_GPU,
    command=("python", "main.py", "--port=${port}", "--id", "${machine_id}/${gpu}", "${OTHER}", "$port"),
    port=8188,
    connector="comfyui",
    env={"CACHE": "/cache/${gpu}", "TOKEN": SecretRef(source="env", name="HF_TOKEN")},
    cwd="/srv/${machine_id}/gpu${gpu}",
    install=install("get", "--for", "${machine_id}", creates="/srv/${machine_id}/.done"),
    health=structs.replace(HEALTH, http="/healthz?p=${port}"),
)


HF_TOKEN = SecretRef(source="env", name="HF_TOKEN")


def test_placeholders_are_filled_in_slot_by_slot_everywhere() -> None:
    m = one([REAL], num_gpus=2)
    assert line(get(m, "comfyui-gpu1")) == (
        "comfyui-gpu1 [service]; python main.py --port=8189 --id m/1 ${OTHER} $port; port 8189; "
        f"CUDA_VISIBLE_DEVICES=1 EMP_GPU_SLOT=1 CACHE=/cache/1 TOKEN={HF_TOKEN}; "
        "cwd /srv/m/gpu1; health /healthz?p=8189; after comfyui-installer"
    )
    assert line(get(m, "comfyui-installer")) == (
        f"comfyui-installer [installer]; get --for m; CACHE=/cache/0 TOKEN={HF_TOKEN}; "
        "cwd /srv/m/gpu0; creates /srv/m/.done; after shared-setup"
    )


def test_the_services_environment_wins_over_the_machines() -> None:
    m = one([service("s", env={"A": "service"})], env={"A": "machine", "B": "machine", "EMP_GPU_SLOT": "no"})
    assert get(m, "s").env == {"A": "service", "B": "machine", "EMP_GPU_SLOT": "no"}
    assert get(m, "shared-setup").env == {"A": "machine", "B": "machine", "EMP_GPU_SLOT": "no"}
    # The slot is what it is, whatever the file says.
    assert get(m, "redis-worker-gpu0").env["EMP_GPU_SLOT"] == "0"


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (Gpus(kind=GpuKind.NONE, ids=()), ["0", "1"]),
        (Gpus(kind=GpuKind.NVIDIA, ids=()), ["0", "1"]),
        (Gpus(kind=GpuKind.NVIDIA, ids=("GPU-ab", "3")), ["GPU-ab", "3"]),
    ],
)
def test_each_slot_sees_its_own_device(gpus: Gpus, expected: list[str]) -> None:
    m = one([COMFYUI], num_gpus=2, gpus=gpus)
    for name in ("comfyui-gpu", "redis-worker-gpu"):
        assert [get(m, f"{name}{slot}").env["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [8188, 8189]),
        ({"port_offset": 100}, [8288, 8289]),
        ({"ports": {ServiceName("comfyui"): 9000}}, [9000, 9001]),
        ({"ports": {ServiceName("comfyui"): 9000}, "port_offset": 200}, [9200, 9201]),
    ],
)
def test_ports(changes: dict[str, Any], expected: list[int]) -> None:
    m = one([COMFYUI], num_gpus=2, **changes)
    assert [get(m, f"comfyui-gpu{slot}").port for slot in (0, 1)] == expected
    for slot, port in enumerate(expected):
        assert f"comfyui=comfyui@http://127.0.0.1:{port}" in get(m, f"redis-worker-gpu{slot}").argv


def test_a_worker_is_told_of_services_that_take_jobs_only() -> None:
    silent = service("silent", port=1)
    deaf = service("deaf", connector="comfyui")
    assert "--service" not in get(one([silent, deaf, SETUP]), "redis-worker-gpu0").argv


def test_a_worker_is_told_its_connectors_options() -> None:
    m = one([service("video", port=1, connector="http", connector_options={"path": "/run", "done": ["a=b"]})])
    argv = get(m, "redis-worker-gpu0").argv
    at = argv.index("--connector-options")
    assert argv[at - 2 : at + 2] == (
        *("--service", "video=http@http://127.0.0.1:1"),
        *("--connector-options", 'video={"done":["a=b"],"path":"/run"}'),
    )
    assert with_options((parse_binding(argv[at - 1]),), (argv[at + 1],)) == (
        ServiceBinding(
            service="video", connector="http", url="http://127.0.0.1:1", options={"path": "/run", "done": ["a=b"]}
        ),
    )


def test_a_workers_stop_outlasts_its_drain() -> None:
    m = one([], worker=WorkerSpec(capabilities={"b": 1, "a": [True]}, drain_timeout_s=90.0, job_timeout_s=0.5))
    worker = get(m, "redis-worker-gpu0")
    assert worker.stop == Stop(signal="TERM", timeout_s=95.0)
    assert worker.argv[-8:] == (
        *("--capabilities", '{"a":[true],"b":1}'),
        *("--drain-timeout", "90", "--job-timeout", "0.5", "--lease-ttl", "30"),
    )


def test_workers_hear_of_another_lease_or_store_by_their_arguments() -> None:
    """So that a change of either is a change of the machine's configuration, and reaches workers that run."""
    before = fleet([], machine())
    jobs = structs.replace(before.jobs, artifacts="s3://renders/a", lease_s=2.5)
    after = structs.replace(before, jobs=jobs)
    old, new = (desired_machines(f)[MachineId("m")] for f in (before, after))
    assert get(new, "redis-worker-gpu0").argv[-4:] == ("--lease-ttl", "2.5", "--artifacts", "s3://renders/a")
    assert config_hash(old) != config_hash(new)


@pytest.mark.parametrize(
    ("store", "changes", "told"),
    [
        ("", {}, None),
        ("", {"runtime": RuntimeKind.COMPOSE}, None),
        ("", {"runtime": RuntimeKind.COMPOSE, "host": "far"}, "api://"),
        ("", {"runtime": RuntimeKind.EXTERNAL}, "api://"),
        ("s3://b/f", {"runtime": RuntimeKind.EXTERNAL}, "s3://b/f"),
        ("file:///net/out", {}, "file:///net/out"),
        ("file:///net/out", {"runtime": RuntimeKind.COMPOSE}, "api://"),
        ("file:///net/out", {"runtime": RuntimeKind.EXTERNAL}, "api://"),
        ("file:///net/out", {"runtime": RuntimeKind.EXTERNAL, "volumes": ("/net", "/net", False)}, "file:///net/out"),
        ("local:///net/out", {"runtime": RuntimeKind.COMPOSE, "volumes": ("/net/out/", "/net/out/", False)}, None),
        ("file:///net/out", {"runtime": RuntimeKind.EXTERNAL, "volumes": ("/net", "/net", True)}, "api://"),
        ("file:///net/out", {"runtime": RuntimeKind.EXTERNAL, "volumes": ("/mnt", "/net", False)}, "api://"),
        ("file:///network", {"runtime": RuntimeKind.EXTERNAL, "volumes": ("/net", "/net", False)}, "api://"),
    ],
)
def test_who_does_not_see_the_store_asks_the_api(store: str, changes: dict[str, Any], told: str | None) -> None:
    if "volumes" in changes:
        source, target, read_only = changes["volumes"]
        changes = {**changes, "volumes": (Volume(source=source, target=target, read_only=read_only),)}
    made = fleet([], machine(**changes))
    hosts = {"far": DockerHost(docker="ssh://far", tls=None)}
    made = structs.replace(made, hosts=hosts, jobs=structs.replace(made.jobs, artifacts=store))
    argv = get(desired_machines(made)[MachineId("m")], "redis-worker-gpu0").argv
    found = argv[argv.index("--artifacts") + 1] if "--artifacts" in argv else None
    assert found == (store if told is None and store else told)


# --- order


def order(*services: Service) -> str:
    return " ".join(p.name for p in one(services).programs)


A = service("a", depends_on=("b",))
B = service("b", depends_on=("c", "elsewhere"))
C = service("c", install=install("x"))


def test_services_come_after_those_they_depend_on_else_as_the_file_has_them() -> None:
    assert order(A, B, C) == "shared-setup c-installer c b a redis-worker-gpu0"
    assert order(C, B, A) == order(A, B, C)
    assert order(A, C) == "shared-setup c-installer a c redis-worker-gpu0"


@pytest.mark.parametrize(
    ("name", "after"),
    [("c-installer", "shared-setup"), ("c", "c-installer"), ("b", "shared-setup c"), ("a", "shared-setup b")],
)
def test_a_program_waits_for_those_its_service_depends_on(name: str, after: str) -> None:
    assert " ".join(get(one([A, B, C]), name).after) == after


def test_it_waits_for_every_slot_of_a_per_gpu_service() -> None:
    m = one([COMFYUI, service("after", depends_on=("comfyui",))], num_gpus=3)
    assert get(m, "after").after == ("shared-setup", "comfyui-gpu0", "comfyui-gpu1", "comfyui-gpu2")


def test_a_set_up_step_waits_for_what_it_depends_on_too() -> None:
    m = one([service("fill", scale=Scale.ONCE, depends_on=("comfyui",)), COMFYUI])
    assert get(m, "fill").after == ("shared-setup", "comfyui-gpu0")


def test_a_set_up_step_waits_for_its_own_installer() -> None:
    m = one([service("fill", scale=Scale.ONCE, install=install("get", creates="x"))])
    assert [p.name for p in m.programs] == ["shared-setup", "fill-installer", "fill", "redis-worker-gpu0"]
    assert get(m, "fill").after == ("fill-installer",)


# --- names


def test_workers_by_id() -> None:
    m = one([], machine_id="a-worker-b", num_gpus=2)
    assert m.workers == {"a-worker-b-worker-0": "redis-worker-gpu0", "a-worker-b-worker-1": "redis-worker-gpu1"}
    assert m.program(ProgramName("absent")) is None


@pytest.mark.parametrize(
    ("worker", "expected"), [("m-worker-0", "m"), ("a-worker-b-worker-12", "a-worker-b"), ("stray", ""), ("", "")]
)
def test_the_machine_of_a_worker(worker: str, expected: str) -> None:
    assert machine_of(worker) == expected


def test_ids_and_programs_of_workers_are_those_of_the_procedures() -> None:
    assert worker_id(MachineId("basic-machine-local"), 1) == "basic-machine-local-worker-1"
    assert worker_program(1) == "redis-worker-gpu1"


def test_machines_come_in_the_order_of_the_file() -> None:
    of = fleet([SIMULATION], machine("b"), machine("a"), machine("c", services=["simulation"]))
    assert list(desired_machines(of)) == ["b", "a", "c"]
    assert desired_machines(of) == desired_machines(of)


# --- the digest

BASE = one([SIMULATION, COMFYUI])


@pytest.mark.parametrize(
    "same",
    [
        structs.replace(BASE, origin="emp.yaml:99:1"),
        structs.replace(BASE, programs=tuple(structs.replace(p, origin="elsewhere") for p in BASE.programs)),
        structs.replace(BASE, labels=dict(BASE.labels)),
        one([SIMULATION, COMFYUI], env={}),
    ],
)
def test_where_a_machine_stands_in_the_file_is_no_change(same: DesiredMachine) -> None:
    assert config_hash(same) == config_hash(BASE)


@pytest.mark.parametrize(
    "other",
    [
        one([SIMULATION, COMFYUI], num_gpus=2),
        one([SIMULATION]),
        one([COMFYUI, SIMULATION]),
        one([SIMULATION, COMFYUI], env={"A": "1"}),
        one([SIMULATION, COMFYUI], env={"A": SecretRef(source="env", name="A")}),
        one([SIMULATION, COMFYUI], labels={"zone": "a"}),
        one([SIMULATION, COMFYUI], health_port=9000),
        one([structs.replace(SIMULATION, port=1), COMFYUI]),
        one([SIMULATION, structs.replace(COMFYUI, health=structs.replace(HEALTH, failures=4))]),
        one([SIMULATION, COMFYUI], worker=WorkerSpec(capabilities={}, drain_timeout_s=30.0, job_timeout_s=601.0)),
        one([SIMULATION, COMFYUI], machine_id="n"),
    ],
)
def test_all_that_a_machine_is_configured_by_is_in_its_digest(other: DesiredMachine) -> None:
    assert config_hash(other) != config_hash(BASE)


def test_the_order_of_an_environment_is_no_change() -> None:
    there, back = one([], env={"A": "1", "B": "2"}), one([], env={"B": "2", "A": "1"})
    assert config_hash(there) == config_hash(back)


@pytest.mark.parametrize(
    ("health", "asked"),
    [
        ({"tcp": "${port}"}, {"tcp": "8189"}),
        ({"tcp": "db.local:54${gpu}"}, {"tcp": "db.local:541"}),
        ({"command": ("check", "--at", "${port}")}, {"command": ("check", "--at", "8189")}),
    ],
)
def test_a_health_check_is_of_its_slot(health: dict[str, Any], asked: dict[str, Any]) -> None:
    service_ = structs.replace(COMFYUI, health=structs.replace(HEALTH, http="", **health))
    program = one([service_], num_gpus=2).program(ProgramName("comfyui-gpu1"))
    assert program is not None and program.health == structs.replace(HEALTH, http="", **asked)
