"""The shared set-up step of every machine: what all programs need, checked before anything starts."""

from __future__ import annotations

import os
import shutil

from emp_orch.host.freespace import refuse_full
from emp_orch.machine.home import folder as folders


def shared_setup() -> str:
    """Make the machine's folders, check the disk; returns what was found, for the log."""
    folder = folders.from_environment()
    folder.data.mkdir(exist_ok=True)
    refuse_full(folder.data)
    free = shutil.disk_usage(folder.data).free
    gpus = os.environ.get("NUM_GPUS", "?")
    return f"shared set-up done: {folder.data} is writable, {free // 1024**3} GiB free, {gpus} GPU slots"
