"""The shared set-up step of every machine: what all programs need, checked before anything starts."""

from __future__ import annotations

import os
import shutil

from emp_orch.errors import EmpError
from emp_orch.machine import folder as folders

# Less free space than this and a machine does not start: logs and outputs would fill the disk.
MIN_FREE_BYTES = 256 * 1024**2


def shared_setup() -> str:
    """Make the machine's folders, check the disk; returns what was found, for the log."""
    folder = folders.from_environment()
    folder.data.mkdir(exist_ok=True)
    probe = folder.data / ".writable"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise EmpError(f"cannot write in {folder.data}: {e.strerror}", hint="check its owner and permissions") from e
    free = shutil.disk_usage(folder.data).free
    if free < MIN_FREE_BYTES:
        raise EmpError(
            f"only {free // 1024**2} MiB free in {folder.data}, {MIN_FREE_BYTES // 1024**2} MiB needed",
            hint="free some space; `emp logs --clear` empties the logs",
        )
    gpus = os.environ.get("NUM_GPUS", "?")
    return f"shared set-up done: {folder.data} is writable, {free // 1024**3} GiB free, {gpus} GPU slots"
