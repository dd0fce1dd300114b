"""A fleet of machines that nobody has to start, and what its agents and workers would say."""

from __future__ import annotations

import msgspec

from emp_orch import __version__, manifest
from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import Fleet, MachineId, WorkerId
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    MachineReport,
    MachineStatus,
    ProgramReport,
    ProgramState,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.layout import Layout
from emp_orch.seals import KEY_BYTES, Seal
from emp_orch.settings import Listen, Settings, write_private

# A program becomes what it starts, so a worker's own pid is its program's.
PID = 4_711
FLEET = "bench"
# Longer than any pause between two heartbeats of the largest fleet.
STALE_S = 120
_KEY = bytes(KEY_BYTES)

# A machine of 8 GPUs has 18 programs: two set-up steps, a service and a worker for each GPU.
_YAML = """\
version: 1
name: {name}
redis: {{url: {redis}}}
services:
  comfyui: {{scale: per_gpu, builtin: simulation, port: 8188, health: {{http: /system_stats}}}}
machines:
  m: {{runtime: external, num_gpus: {gpus}, replicas: {machines}, services: [comfyui]}}
reconcile: {{stale_after: {stale}s}}
"""


def fleet(redis_url: str, machines: int, gpus: int) -> Fleet:
    """`machines` alike, as an emp.yaml names them."""
    text = _YAML.format(name=FLEET, redis=redis_url, gpus=gpus, machines=machines, stale=STALE_S)
    return manifest.load_text(text, file="bench.yaml", environ={})


def machine_report(machine: DesiredMachine, generation: int, now_ms: int) -> MachineReport:
    """All is well: every set-up step done, every program up and healthy."""
    return MachineReport(
        machine_id=machine.id,
        status=MachineStatus.READY,
        boot_id="4711-1",
        generation=generation,
        config_hash=config_hash(machine),
        num_gpus=machine.num_gpus,
        programs={
            p.name: ProgramReport(state=ProgramState.EXITED, since_ms=now_ms, exit_status=0)
            if p.kind.once
            else ProgramReport(
                state=ProgramState.RUNNING,
                pid=PID,
                since_ms=now_ms,
                healthy=True if p.health is not None else None,
            )
            for p in machine.programs
        },
        host=f"host-of-{machine.id}",
        agent_version="bench",
        started_ms=now_ms,
    )


def worker_report(worker_id: WorkerId, machine_id: MachineId, gpu: int, now_ms: int) -> WorkerReport:
    """An idle worker, with what a real one knows of its hardware."""
    hardware = {"gpu_memory_gb": 24, "gpu_model": "bench", "cpu_cores": 16, "ram_gb": 64}
    return WorkerReport(
        worker_id=worker_id,
        machine_id=machine_id,
        gpu=gpu,
        status=WorkerStatus.IDLE,
        capabilities={"gpu": gpu, "hardware": hardware, "services": ["comfyui"]},
        connector_statuses={"comfyui": ConnectorReport(status=ConnectorStatus.IDLE, version="bench")},
        started_ms=now_ms,
        pid=PID,
        package=f"emp-orch {__version__}",
    )


def seal() -> Seal:
    """What this fleet's control plane seals by: every process of a measurement makes the same."""
    return Seal(_KEY).derived(f"control {FLEET}")


def settings_of(url: str, layout: Layout, *, api: int = 0, monitor: int = 0) -> Settings:
    """As `emp apply` would write them for this fleet on a Redis of its own; the fleet's key is put into its place."""
    layout.control.mkdir(parents=True, exist_ok=True)
    write_private(layout.control / "signing.key", msgspec.json.encode({"key": _KEY.hex()}))
    return Settings(
        fleet=FLEET,
        redis_url=url,
        machine_redis_url=url,
        embedded=False,
        redis_port=int(url.rsplit(":", 1)[1].split("/")[0]),
        prefix="",
        artifacts=layout.artifacts_url,
        api=Listen(host="127.0.0.1", port=api),
        monitor=Listen(host="127.0.0.1", port=monitor),
    )
