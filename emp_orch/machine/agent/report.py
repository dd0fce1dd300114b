"""What a machine says of itself, put together from what the parts of its agent know."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress

from emp_orch import __version__, builds
from emp_orch.errors import EmpError
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.fleet.model.package import Build
from emp_orch.machine.agent.parts import Parts
from emp_orch.machine.apart import SERVICES_FOLDER, why_together
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.packing import own_digest


class SelfReport:
    """`status` and `error` are set by `set_status` alone, `health_port` and `build` once they are known."""

    def __init__(self, parts: Parts, *, redis: str, box: str) -> None:
        """`redis` is where the machine's Redis is, fit to be shown; `box` the identity of one that joined by itself."""
        self._parts = parts
        self._redis = redis
        self._box = box
        self.status = MachineStatus.STARTING
        self._error = ""
        self.health_port = 0
        self.build: Build | None = None
        self._started_ms = int(time.time() * 1000)
        in_container = parts.kept.machine.container is not None or SERVICES_FOLDER in os.environ
        self._together = why_together(os.environ) if in_container else ""

    def now(self) -> MachineReport:
        """The report as it stands."""
        parts, kept = self._parts, self._parts.kept
        parts.last_exits.memory.look()
        return MachineReport(
            machine_id=kept.machine.id,
            status=self.status,
            boot_id=kept.state.boot_id,
            generation=kept.config.generation,
            config_hash=kept.config.digest,
            num_gpus=kept.machine.num_gpus,
            programs=dict(parts.programs.reports),
            host=platform.node(),
            agent_version=__version__,
            started_ms=self._started_ms + parts.link.offset_ms,
            gpus=parts.gpus.reports,
            gpu_error=parts.gpus.error,
            health_port=self.health_port,
            error=self._error,
            redis=self._redis,
            rival=parts.link.rival,
            forged=parts.trust.words,
            package=parts.packages.current,
            package_error=parts.packages.error,
            build=self.build,
            disk_error=parts.disk.error,
            box=self._box,
            together=self._together,
        )

    def set_status(self, status: MachineStatus, error: str) -> None:
        if self.status is MachineStatus.STOPPING or (status, error) == (self.status, self._error):
            return
        self.status, self._error = status, error
        self._parts.link.event("machine_status", status=status, error=error)


def build_in(folder: MachineFolder) -> Build | None:
    """The emp that is on the disk, and what its supervisord loaded; None where emp's files cannot be read. It reads
    all of them: soon after our start they are what we have loaded, or a moment older.
    """
    with suppress(EmpError):
        return Build(emp=own_digest(), supervision=builds.left(folder.run, builds.LOADED))
    return None
