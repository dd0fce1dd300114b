"""GPUs that somebody allotted: what each variable says, which one counts, and what the programs of a slot get."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.slots_of_allotment import lacking
from emp_orch.fleet.model.allotment import Allotment, read
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Gpus, Machine, ProgramName, SecretRef
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.machine.home.box_gpus import as_allotted
from support.fleet.fleets import COMFYUI, env, fleet, machine, service

A, B, C = "GPU-8932f937-d72c-4106", "GPU-1c2d", "MIG-9a1b"


def said(**environ: str) -> Allotment:
    found = read(environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("2,3", "2 3"),
        (" 3 , 1 ", "3 1"),
        ("07", "7"),
        (f"{A},{B}", f"{A} {B}"),
        (C, C),
        ("MIG-GPU-8932/1/0", "MIG-GPU-8932/1/0"),
        # none at all
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        # the first that is none hides the rest
        ("0,2,-1,1", "0 2"),
        ("0,,1", "0"),
        ("0,x,1", "0"),
        (f"0,{A}", "0"),
        (f"{A},0", A),
        # one that stands twice hides all
        ("1,2,1", ""),
        ("1,01", ""),
        (f"{A},{A}", ""),
    ],
)
def test_what_cuda_shows(value: str, devices: str) -> None:
    found = said(CUDA_VISIBLE_DEVICES=value)
    assert " ".join(found.names) == devices
    assert found.whole == {"CUDA_VISIBLE_DEVICES": ",".join(found.names) or "-1"}
    assert found.of_slot(len(found.slots)) == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert found.said == f"CUDA_VISIBLE_DEVICES={value}"


@pytest.mark.parametrize(
    ("environ", "slots"),
    [
        ({"HIP_VISIBLE_DEVICES": "2,3"}, ["HIP 2, CUDA 2", "HIP 3, CUDA 3"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, ["ROCR 2, HIP 0, CUDA 0", "ROCR 3, HIP 0, CUDA 0"]),
        # HIP counts what ROCR shows
        (
            {"ROCR_VISIBLE_DEVICES": "4,5,6", "HIP_VISIBLE_DEVICES": "2,0,3"},
            ["ROCR 6, HIP 0, CUDA 0", "ROCR 4, HIP 0, CUDA 0"],
        ),
        ({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": ""}, []),
        # as Slurm writes it, whatever the vendor
        (
            {"CUDA_VISIBLE_DEVICES": "2,3", "ROCR_VISIBLE_DEVICES": "2,3"},
            ["ROCR 2, HIP 0, CUDA 2", "ROCR 3, HIP 0, CUDA 3"],
        ),
        # HIP goes by CUDA's where it has none of its own
        ({"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "4,5"}, ["ROCR 5, HIP 0, CUDA 1"]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "3"}, ["HIP 3, CUDA 0", "HIP -1, CUDA 1"]),
    ],
)
def test_what_amds_runtimes_show(environ: dict[str, str], slots: list[str]) -> None:
    def short(names: dict[str, str]) -> str:
        return ", ".join(
            f"{n} {names[f'{n}_VISIBLE_DEVICES']}" for n in ("ROCR", "HIP", "CUDA") if f"{n}_VISIBLE_DEVICES" in names
        )

    assert [short(slot) for slot in said(**environ).slots] == slots


@pytest.mark.parametrize(
    ("environ", "devices", "words"),
    [
        ({"SLURM_JOB_GPUS": "4,5"}, "4 5", "SLURM_JOB_GPUS=4,5"),
        ({"SLURM_JOB_GPUS": "0,2-4"}, "0 2 3 4", "SLURM_JOB_GPUS=0,2-4"),
        ({"SLURM_JOB_GPUS": "4,5", "SLURM_STEP_GPUS": "5"}, "5", "SLURM_STEP_GPUS=5"),
        ({"SLURM_JOB_GPUS": "4,5", "CUDA_VISIBLE_DEVICES": "1"}, "1", "CUDA_VISIBLE_DEVICES=1"),
        (
            {"SLURM_JOB_GPUS": "4,5", "CUDA_VISIBLE_DEVICES": "0,1,2"},
            "0 1",
            "CUDA_VISIBLE_DEVICES=0,1,2, of which SLURM_JOB_GPUS=4,5 allows 2",
        ),
        ({"DOCKER_RESOURCE_GPU": "3"}, "0 1 2", "DOCKER_RESOURCE_GPU=3"),
        ({"DOCKER_RESOURCE_NVIDIA-GPU": f"{A},{B}"}, f"{A} {B}", f"DOCKER_RESOURCE_NVIDIA-GPU={A},{B}"),
        (
            {"DOCKER_RESOURCE_GPU": A, "CUDA_VISIBLE_DEVICES": f"{B},GPU-8932f937"},
            "GPU-8932f937",
            f"CUDA_VISIBLE_DEVICES={B},GPU-8932f937, of which DOCKER_RESOURCE_GPU={A} allows 1",
        ),
        ({"NVIDIA_VISIBLE_DEVICES": f"{A},{B}"}, f"{A} {B}", f"NVIDIA_VISIBLE_DEVICES={A},{B}"),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, "", "NVIDIA_VISIBLE_DEVICES=none"),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "7"}, "7", "CUDA_VISIBLE_DEVICES=7"),
        ({"CUDA_VISIBLE_DEVICES": "\x1b[31m"}, "", "CUDA_VISIBLE_DEVICES=\\x1b[31m"),
    ],
)
def test_what_allotters_wrote_down(environ: dict[str, str], devices: str, words: str) -> None:
    found = said(**environ)
    assert (" ".join(found.names), found.said) == (devices, words)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        {"NVIDIA_VISIBLE_DEVICES": "void"},
        {"NVIDIA_VISIBLE_DEVICES": "", "SLURM_JOB_GPUS": "", "DOCKER_RESOURCE_SSD": "1"},
    ],
)
def test_nobody_allotted_any(environ: dict[str, str]) -> None:
    assert read(environ) is None


@pytest.mark.parametrize(
    ("shown", "devices"),
    [((A, B), "0 1"), ((A,), "0 1"), ((A, B, "GPU-c", "GPU-d"), "2 3"), (None, "2 3")],
    ids=["a cgroup", "one of them is lost", "the whole node", "no driver"],
)
def test_an_allotters_indices_are_the_nodes_unless_the_driver_shows_no_others(
    shown: tuple[str, ...] | None, devices: str
) -> None:
    for name in ("SLURM_JOB_GPUS", "NVIDIA_VISIBLE_DEVICES"):
        found = read({name: "2,3"}, lambda: shown)
        assert found is not None and " ".join(found.names) == devices
    # What programs obey counts what they see already.
    obeyed = read({"CUDA_VISIBLE_DEVICES": "2,3"}, lambda: shown)
    assert obeyed is not None and obeyed.names == ("2", "3")


def test_a_container_gets_uuids_where_the_driver_tells_them() -> None:
    found = read({"CUDA_VISIBLE_DEVICES": "3,1"}, lambda: (A, B, "GPU-c", "GPU-d"))
    assert found is not None and found.ids == ("GPU-d", B)
    assert said(CUDA_VISIBLE_DEVICES="3,1").ids == ("3", "1")


# -- on a machine

WEB = service("web", env=env(KEEP="1"))
CHOSEN = service("chosen", scale=COMFYUI.scale, env=env(CUDA_VISIBLE_DEVICES="7", EMP_X="${gpu}"))


def on(given: Allotment | None, **changes: Any) -> tuple[Fleet, Machine]:
    m = machine(services=["comfyui", "web", "chosen"], num_gpus=2, **changes)
    return structs.replace(fleet([COMFYUI, WEB, CHOSEN], m), allotment=given), m


def devices(made: Fleet, m: Machine) -> dict[str, object]:
    programs = desired_machine(made, m).programs
    return {p.name: p.env.get("CUDA_VISIBLE_DEVICES") for p in programs}


def test_slots_are_the_allotted_devices_and_other_programs_see_all_of_them() -> None:
    found = devices(*on(said(CUDA_VISIBLE_DEVICES="2,3")))
    assert found == {
        "shared-setup": "2,3",
        "comfyui-installer": "2,3",
        "comfyui-gpu0": "2",
        "comfyui-gpu1": "3",
        "web": "2,3",
        "chosen-gpu0": "7",  # emp.yaml names it
        "chosen-gpu1": "7",
        "redis-worker-gpu0": "2",
        "redis-worker-gpu1": "3",
    }


def test_without_an_allotment_nothing_is_other_than_before() -> None:
    found = devices(*on(None))
    assert found["comfyui-gpu1"] == "1" and found["web"] is None


def test_a_slot_that_nothing_is_left_for_sees_none() -> None:
    found = devices(*on(said(CUDA_VISIBLE_DEVICES="5")))
    assert (found["comfyui-gpu0"], found["comfyui-gpu1"]) == ("5", "-1")


def test_a_machines_own_env_allots_too() -> None:
    own = {"CUDA_VISIBLE_DEVICES": "4,6", "HIP_VISIBLE_DEVICES": "4,6", "SECRET": SecretRef(source="env", name="S")}
    made, m = on(said(CUDA_VISIBLE_DEVICES="2,3"), env=own)
    programs = desired_machine(made, m)
    assert devices(made, m)["comfyui-gpu1"] == "6"
    found = programs.program(ProgramName("comfyui-gpu1"))
    assert found is not None and found.env["HIP_VISIBLE_DEVICES"] == "6"


def test_ids_of_emp_yaml_stand() -> None:
    made, m = on(said(CUDA_VISIBLE_DEVICES="2,3"), gpus=Gpus(kind=GpuKind.NVIDIA, ids=("3", "2")))
    assert devices(made, m)["comfyui-gpu0"] == "3" and lacking(made, m) == ""


def test_a_container_of_this_host_reserves_the_allotted_ones() -> None:
    given = structs.replace(said(CUDA_VISIBLE_DEVICES="6,2,4"), hosts=("local",))
    boxed = {"runtime": RuntimeKind.COMPOSE, "gpus": Gpus(kind=GpuKind.NVIDIA, ids=())}
    made, m = on(given, **boxed)
    container = desired_machine(made, m).container
    assert container is not None and container.gpus == ("6", "2")
    assert devices(made, m)["comfyui-gpu0"] == "1"  # inside they are numbered anew
    made, m = on(given, host="far", **boxed)
    container = desired_machine(made, m).container
    assert container is not None and container.gpus == ("0", "1")


@pytest.mark.parametrize(
    ("environ", "gpus", "words"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2"}, (), "machine m asks for 2 GPUs, and CUDA_VISIBLE_DEVICES=2 allots 1 GPU"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, (), "machine m asks for 2 GPUs, and CUDA_VISIBLE_DEVICES=-1 allots no GPU"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, (), ""),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "5"), "gpus.ids of machine m names 5, not in CUDA_VISIBLE_DEVICES=2,3"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, (A, B), ""),  # nobody can tell
        (
            {"CUDA_VISIBLE_DEVICES": A},
            ("GPU-8932", B),
            f"gpus.ids of machine m names {B}, not in CUDA_VISIBLE_DEVICES={A}",
        ),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("0", "1"), "gpus.ids of machine m names 0, 1, not in CUDA_VISIBLE_DEVICES="),
    ],
)
def test_what_is_lacking_is_named(environ: dict[str, str], gpus: tuple[str, ...], words: str) -> None:
    made, m = on(said(**environ), gpus=Gpus(kind=GpuKind.NVIDIA, ids=gpus))
    assert lacking(made, m) == words
    made, m = on(said(**environ))
    assert lacking(made, m) == "", "slots of a machine without GPUs are only numbers"


def test_a_box_that_joined_goes_by_its_own_environment() -> None:
    made, m = on(said(CUDA_VISIBLE_DEVICES="0"), runtime=RuntimeKind.EXTERNAL, gpus=Gpus(kind=GpuKind.NVIDIA, ids=()))
    wanted = desired_machine(made, m)
    assert devices(made, m)["comfyui-gpu1"] == "1"
    box = as_allotted(wanted, {"SLURM_JOB_GPUS": "4,5"})
    assert [p.env["CUDA_VISIBLE_DEVICES"] for p in box.programs if p.slot == 1] == ["5", "7", "5"]
    assert as_allotted(wanted, {}) is wanted
    with pytest.raises(EmpError, match="machine m asks for 2 GPUs, and NVIDIA_VISIBLE_DEVICES=GPU-a allots 1 GPU on"):
        as_allotted(wanted, {"NVIDIA_VISIBLE_DEVICES": "GPU-a"})
    here = desired_machine(*on(None))
    assert as_allotted(here, {"CUDA_VISIBLE_DEVICES": ""}) is here
