"""What a worker finds out of its hardware by itself, for `capabilities["hardware"]`. Nothing here raises.

GB are 10^9 bytes and rounded down, so that a card sold as 24 GB has at least 24, and equal boxes say the same.
What cannot be found out is left out; a user's own word wins over all of it.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_orch.host import gpus
from emp_orch.jobs.matching.requirements import HARDWARE_ALIASES

log = logging.getLogger("emp.worker")

GB = 1_000_000_000
# Names of "no limit" in cgroup files: v2 writes max, v1 a number beyond any memory (for CPU -1).
_UNLIMITED = 1 << 60


def rounded_gb(size: int) -> float:
    """Bytes as GB, rounded down: to whole ones from 10 on, else to tenths."""
    gb = size / GB
    return float(math.floor(gb)) if gb >= 10 else math.floor(gb * 10) / 10


def _cgroup_folders(controller: str, proc: Path, root: Path) -> list[Path]:
    """This process's cgroup folders that may limit `controller`, innermost first (cgroups(7))."""
    folders: list[Path] = []
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        inner = top / path.lstrip("/")
        # In a container the mount often begins at the container's own group, so the path does not exist below it.
        folders += [f for f in (inner, *inner.parents) if f == top or top in f.parents]
    return folders


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def memory_bytes(*, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory this process may use: the machine's, or a cgroup's limit below it."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (OSError, ValueError):
        found = []
    for folder in _cgroup_folders("memory", proc, root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None and 0 < limit < _UNLIMITED:
                found.append(limit)
    return min(found, default=None)


def _quota(folder: Path) -> float | None:
    """How many CPUs' worth of time a cgroup may use."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    v1_quota, v1_period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return v1_quota / v1_period if v1_quota and v1_period and v1_quota > 0 else None


def cpu_cores(*, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The CPUs this process may run on, or as many as a cgroup's quota is worth when that is fewer, at least 1."""
    if sys.platform == "linux":
        count: int | None = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    quotas = [q for f in _cgroup_folders("cpu", proc, root) if (q := _quota(f)) is not None]
    if count is None or not quotas:
        return count
    return max(1, min(count, math.floor(min(quotas))))


def visible_devices(slot: int, env: Mapping[str, str]) -> tuple[str, ...]:
    """The devices of a slot: those of CUDA_VISIBLE_DEVICES up to the first that hides the rest, else device `slot`.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    text = env.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return (str(slot),)
    devices: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not name or name.startswith("-"):
            break
        devices.append(name)
    return tuple(devices)


def find_gpus(devices: tuple[str, ...]) -> dict[str, Any]:
    """gpu_count, gpu_memory_gb and gpu_model of `devices`; empty where NVIDIA's library or driver is not there.

    Of several devices, memory and model are those of the one with the least memory.
    """
    try:
        with gpus.opened() as nvml:
            found = [gpu for name in devices if (gpu := _gpu(nvml, name)) is not None]
    except (gpus.NoDriver, gpus.Broken) as e:
        log.info("GPU not looked at: %s", e)
        return {}
    if not found:
        return {"gpu_count": 0}
    memory, model = min(found)
    return {"gpu_count": len(found), "gpu_memory_gb": rounded_gb(memory), "gpu_model": model}


def _gpu(nvml: Any, name: str) -> tuple[int, str] | None:
    """Memory in bytes and model of a device named by index or (part of a) UUID; None when it cannot be read."""
    try:
        handle = _handle(nvml, name)
        if handle is None:
            log.warning("there is no GPU %s", name)
            return None
        gpu = gpus.read(nvml, handle)
        return gpu.memory_bytes, gpu.name
    except (nvml.NVMLError, UnicodeDecodeError) as e:
        log.warning("GPU %s cannot be read: %s", name, e)
        return None


def _handle(nvml: Any, name: str) -> Any | None:
    # NVML counts devices in PCI bus order. CUDA's own order may differ where the cards of a box do.
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name)) if int(name) < nvml.nvmlDeviceGetCount() else None
    if name.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    handles = (nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount()))
    return next((h for h in handles if str(nvml.nvmlDeviceGetUUID(h)).startswith(name)), None)


def find_hardware(slot: int, env: Mapping[str, str]) -> dict[str, Any]:
    """All that this process can find out of the hardware for GPU slot `slot`."""
    memory, cores = memory_bytes(), cpu_cores()
    found: dict[str, Any] = {}
    if cores is not None:
        found["cpu_cores"] = cores
    if memory is not None:
        found["ram_gb"] = rounded_gb(memory)
    return {**found, **find_gpus(visible_devices(slot, env))}


def merged(found: Mapping[str, Any], given: object) -> Any:
    """`found` under the user's own `hardware`, key by key. One that is no mapping stays as it is, to be shown."""
    if given is None:
        return dict(found)
    if not isinstance(given, Mapping):
        return given
    hidden = {HARDWARE_ALIASES[name] for name in given if name in HARDWARE_ALIASES}
    return {**{name: value for name, value in found.items() if name not in hidden}, **given}
