"""The memory of the cgroup that this process is in, as far as the kernel tells: v2 or v1, in a container too.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst (memory.events, memory.peak) and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# What v1 writes for no limit: more than any machine has.
NO_LIMIT = 1 << 60


class MemoryCgroup:
    """`kills`: how many of its processes the kernel has killed for want of memory, since it was made; None: unknown."""

    def __init__(self, folder: Path | None, *, v2: bool) -> None:
        self._folder = folder
        self._v2 = v2

    def kills(self) -> int | None:
        text = self._read("memory.events" if self._v2 else "memory.oom_control")
        counted = (line.partition(" ") for line in text.splitlines())
        return next((int(n) for name, _, n in counted if name == "oom_kill" and n.isdecimal()), None)

    def limit(self) -> int:
        """In bytes; 0 without one."""
        text = self._read("memory.max" if self._v2 else "memory.limit_in_bytes").strip()
        return int(text) if text.isdecimal() and int(text) < NO_LIMIT else 0

    def most_used(self) -> int:
        """The most that it ever used, in bytes; 0 where nobody knows (v2 before Linux 5.19)."""
        text = self._read("memory.peak" if self._v2 else "memory.max_usage_in_bytes").strip()
        return int(text) if text.isdecimal() else 0

    def _read(self, name: str) -> str:
        if self._folder is None:
            return ""
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(4096).decode("ascii", "replace")
        except OSError:
            return ""


def own_memory(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> MemoryCgroup:
    """That of this process. A container may see its own cgroup as `root`, and its path as the host has it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return MemoryCgroup(None, v2=True)
    parts = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    paths = {controllers: path for _, controllers, path in parts}
    v1 = next((path for controllers, path in paths.items() if "memory" in controllers.split(",")), None)
    above = root / "memory" if v1 is not None else root
    path = v1 if v1 is not None else paths.get("", "/")
    counted = "memory.oom_control" if v1 is not None else "memory.events"
    places = (Path(os.path.normpath(f"{above}/{path}")), above)
    return MemoryCgroup(next((p for p in places if (p / counted).is_file()), None), v2=v1 is None)
