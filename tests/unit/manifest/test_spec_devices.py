"""`gpus` in emp.yaml beside the cards of this host: ids that are not there, slots that are only numbers, no driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emp_orch.fleet.model.fleet import GpuKind
from emp_orch.host.gpus import Broken, Gpu, Look, NoDriver
from emp_orch.manifest import load_text
from emp_orch.manifest.checks.devices import notes_here
from support.host.nvml_library import with_cards
from support.stack.command import emp

REAL = "  s: {scale: per_gpu, command: serve}\n"
FAKE = "  s: {scale: per_gpu, builtin: simulation, port: 8188}\n"


def cards(number: int, error: str = "") -> Callable[[], Look]:
    found = [Gpu(index=i, name="NVIDIA L4", memory_bytes=24 << 30, uuid=f"GPU-{i}") for i in range(number)]
    return lambda: Look(gpus=tuple(found), error=error)


def raising(error: Exception) -> Callable[[], Look]:
    def look() -> Look:
        raise error

    return look


def text(services: str, machine: str) -> str:
    return f"version: 1\nname: f\nservices:\n{services}machines:\n  m: {{services: [s], {machine}}}\n"


@pytest.mark.parametrize(
    ("services", "machine", "look", "words"),
    [
        (REAL, "num_gpus: 2", cards(4), "this host has 4 NVIDIA GPUs, and machine m leaves out gpus: its slots are"),
        (REAL, "runtime: compose", cards(1), "this host has 1 NVIDIA GPU, and machine m leaves out gpus: its cont"),
        (REAL, "num_gpus: 2, gpus: nvidia", cards(1), "machine m asks for 2 GPUs, and this host has 1"),
        (FAKE, "gpus: nvidia", raising(NoDriver("x")), "no NVIDIA driver here, and machine m has gpus: nvidia"),
        (FAKE, "gpus: nvidia", raising(Broken("mismatch")), "the NVIDIA driver of this host does not work: mismatch"),
        (FAKE, "gpus: nvidia", cards(1, "GPU 1: lost"), "this host's GPUs: GPU 1: lost, and machine m has gpus"),
        (REAL, "num_gpus: 2", cards(1), ""),
        (REAL, "num_gpus: 2", raising(NoDriver("x")), ""),
        (REAL, "num_gpus: 2, gpus: nvidia", cards(2), ""),
        (REAL, "num_gpus: 2, runtime: external", cards(4), ""),
        (FAKE, "num_gpus: 2", raising(AssertionError("nobody need ask")), ""),
    ],
)
def test_notes(services: str, machine: str, look: Callable[[], Look], words: str) -> None:
    fleet = load_text(text(services, machine), file="emp.yaml", environ={})
    found = [str(note) for note in notes_here(fleet, look)]
    assert len(found) == bool(words), found
    assert all(note.startswith(f"emp.yaml:6:3: note: {words}") for note in found)


def test_ids_that_do_not_exist_are_refused_where_the_driver_can_be_asked(tmp_path: Path) -> None:
    driver = with_cards(tmp_path / "driver", 2)
    file = tmp_path / "emp.yaml"
    file.write_text(text(REAL, "num_gpus: 3, gpus: {kind: nvidia, ids: [1, GPU-7, 5]}"))
    refused = emp(tmp_path, "validate", **driver)
    there = "it has GPU 0 (NVIDIA L4, GPU-0), GPU 1 (NVIDIA L4, GPU-1)"
    assert refused.returncode == 2
    assert "machines.m.gpus.ids[1]: this host has no such GPU" in refused.stderr and there in refused.stderr
    assert "machines.m.gpus.ids[2]: this host has no such GPU" in refused.stderr
    assert "ids[0]" not in refused.stderr
    unknown = emp(tmp_path, "validate")
    assert unknown.returncode == 0
    assert unknown.stderr == "emp.yaml:6:3: note: no NVIDIA driver here, and machine m has gpus: nvidia\n"
    file.write_text(text(REAL, "num_gpus: 3, gpus: {kind: nvidia, ids: [1, GPU-0, MIG-7]}"))
    assert emp(tmp_path, "validate", **driver).returncode == 0


def test_init_writes_a_slot_for_each_card_that_a_driver_shows(tmp_path: Path) -> None:
    made = emp(tmp_path, "init", **with_cards(tmp_path / "driver", 3))
    assert made.returncode == 0, made.stderr
    machine = load_text((tmp_path / "emp.yaml").read_text(), file="emp.yaml", environ={}).machines[0]
    assert (machine.num_gpus, machine.gpus.kind) == (3, GpuKind.NVIDIA)
