"""A worker's configuration for runs that a test begins by itself."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.worker.config import WorkerConfig

CONFIG = WorkerConfig(
    machine_id=MachineId("m"),
    gpu=0,
    services=(),
    capabilities={},
    drain_timeout_s=0.0,
    job_timeout_s=60.0,
    lease_s=30.0,
    heartbeat_s=1.0,
    probe_s=1.0,
    artifacts="",
)
