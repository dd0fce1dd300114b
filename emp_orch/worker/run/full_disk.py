"""A run that met a full disk, told with the folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from emp_orch.connectors import sanitise
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.host import freespace
from emp_orch.jobs.document.model import JobError
from emp_orch.jobs.outcome import full_disk


async def told(error: JobError, machine: MachineId, folders: Iterable[Path]) -> JobError:
    """`error`; where a full disk is why, worth another try, and with the one of `folders` that has no room."""
    if not full_disk.is_of_full_disk(error):
        return error
    folder = full_disk.folder_in(error)
    if not folder:
        folder = str(await asyncio.to_thread(freespace.full_among, folders) or "")
    return sanitise.error_of(full_disk.told(error, machine=machine, folder=folder))
