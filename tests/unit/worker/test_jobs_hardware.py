from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.worker.config import WorkerConfig
from emp_orch.worker.services.hardware import (
    cpu_cores,
    find_gpus,
    find_hardware,
    memory_bytes,
    merged,
    rounded_gb,
    visible_devices,
)
from emp_orch.worker.state import WorkerState
from support.host.gpus import Nvml

MIB = 1 << 20


def group(base: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc whose process is in the cgroup of `line`, and a cgroup file system with `files`."""
    proc, root = base / "proc", base / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(line)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return proc, root


def test_this_machine_has_cores_and_memory() -> None:
    found = find_hardware(0, os.environ)
    assert 1 <= found["cpu_cores"] <= (os.cpu_count() or 1)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    assert 0 < found["ram_gb"] <= total


@pytest.mark.parametrize(
    ("size", "gb"),
    [(0, 0.0), (536_870_912, 0.5), (9_999_999_999, 9.9), (10_000_000_000, 10.0), (25_757_220_864, 25.0)],
)
def test_sizes_are_rounded_down(size: int, gb: float) -> None:
    assert rounded_gb(size) == gb


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_are_those_the_process_may_run_on() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{300 * MIB}\n"}),
        ("0::/not/below/a/container/mount\n", {"memory.max": f"{300 * MIB}\n"}),
        ("4:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": f"{300 * MIB}", "memory.max": "max"}),
        ("5:cpu,memory:/\n", {"memory/memory.limit_in_bytes": f"{300 * MIB}"}),
    ],
)
def test_memory_is_the_limit_of_the_cgroup(tmp_path: Path, line: str, files: dict[str, str]) -> None:
    proc, root = group(tmp_path, line, files)
    assert memory_bytes(proc=proc, root=root) == 300 * MIB


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("", {}),
        ("nonsense\n::\n", {"memory.max": "soon"}),
        ("0::/\n", {"memory.max": "max"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}),
    ],
)
def test_memory_without_a_limit_is_the_machines(tmp_path: Path, line: str, files: dict[str, str]) -> None:
    proc, root = group(tmp_path, line, files)
    assert memory_bytes(proc=proc, root=root) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("line", "files", "most"),
    [
        ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "10000 100000\n"}, 1),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "1 0"}, math.inf),
    ],
)
def test_cores_are_no_more_than_the_quota(tmp_path: Path, line: str, files: dict[str, str], most: float) -> None:
    nowhere = tmp_path / "nowhere"
    unlimited = cpu_cores(proc=nowhere, root=nowhere)
    assert unlimited is not None
    proc, root = group(tmp_path, line, files)
    assert cpu_cores(proc=proc, root=root) == min(unlimited, most)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (None, ("2",)),
        ("0", ("0",)),
        (" 1 , GPU-8932f937", ("1", "GPU-8932f937")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
    ],
)
def test_the_devices_of_a_slot(env: str | None, expected: tuple[str, ...]) -> None:
    assert visible_devices(2, {} if env is None else {"CUDA_VISIBLE_DEVICES": env}) == expected


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (("0",), {"gpu_count": 1, "gpu_memory_gb": 25.0, "gpu_model": "NVIDIA GeForce RTX 4090"}),
        (("GPU-bb",), {"gpu_count": 1, "gpu_memory_gb": 24.0, "gpu_model": "NVIDIA L4"}),
        (("0", "1"), {"gpu_count": 2, "gpu_memory_gb": 24.0, "gpu_model": "NVIDIA L4"}),
        (("7", "MIG-x", "GPU-c"), {"gpu_count": 0}),
        ((), {"gpu_count": 0}),
    ],
)
def test_gpus_of_a_slot(monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], expected: dict[str, Any]) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert find_gpus(devices) == expected
    assert nvml.open == 0


@pytest.mark.parametrize("error", [pynvml.NVMLError_LibraryNotFound(), pynvml.NVMLError_DriverNotLoaded(), OSError()])
def test_without_a_driver_nothing_is_said_of_gpus(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(error))
    assert find_gpus(("0",)) == {}


def test_without_the_bindings_nothing_is_said_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus(("0",)) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"cpu_cores": 2, "ram_gb": 8.0}),
        ({}, {"cpu_cores": 2, "ram_gb": 8.0}),
        ({"ram_gb": 4, "gpu_model": "T4"}, {"cpu_cores": 2, "ram_gb": 4, "gpu_model": "T4"}),
        ({"ram": 4}, {"cpu_cores": 2, "ram": 4}),
        ({"cpu": 1, "ram_gb": 4}, {"cpu": 1, "ram_gb": 4}),
        ("large", "large"),
    ],
)
def test_the_users_word_wins_key_by_key(given: object, expected: object) -> None:
    assert merged({"cpu_cores": 2, "ram_gb": 8.0}, given) == expected


def test_a_worker_tells_its_hardware() -> None:
    config = WorkerConfig(
        machine_id=MachineId("m"),
        gpu=1,
        services=(),
        capabilities={"region": "eu", "hardware": {"gpu_model": "T4", "ram": 3}},
        drain_timeout_s=1,
        job_timeout_s=1,
        lease_s=1,
        heartbeat_s=1,
        probe_s=1,
        artifacts="memory://x",
    )
    capabilities = WorkerState(config).capabilities()
    hardware = capabilities.pop("hardware")
    assert capabilities == {"gpu": 1, "region": "eu", "services": []}
    assert hardware["cpu_cores"] >= 1 and hardware["gpu_model"] == "T4" and hardware["ram"] == 3
    assert "ram_gb" not in hardware
