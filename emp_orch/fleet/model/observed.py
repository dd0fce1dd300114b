"""What machines and workers report of themselves, and what one look at the world saw.

`gc=False`: there are tens of thousands of them, none ever part of a cycle; the collector need not look at them.
Each report has one writer: the agent writes MachineReport, the worker writes WorkerReport.
Times are milliseconds since the epoch; ages are judged by Redis TIME only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, PoolName, ProgramName, WorkerId
from emp_orch.fleet.model.package import Build
from emp_orch.fleet.model.pools import SeenPool, Waiting
from emp_orch.fleet.model.runtimes import RuntimeKind


class MachineStatus(StrEnum):
    STARTING = "starting"
    CONFIGURING = "configuring"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    OFFLINE = "offline"


class WorkerStatus(StrEnum):
    INITIALIZING = "initializing"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    PAUSED = "paused"
    STOPPING = "stopping"
    ERROR = "error"
    OFFLINE = "offline"


class ConnectorStatus(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    ACTIVE = "active"
    ERROR = "error"
    OFFLINE = "offline"


class ProgramState(StrEnum):
    """supervisord's process states (http://supervisord.org/subprocess.html#process-states)."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


class OutOfMemory(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The kernel killed a process of a machine for want of memory. Of all the machine, in bytes: what it may use at
    most (0: no limit), and the most that it used (0: nobody knows). `inside`: of a container.
    """

    limit: int = 0
    used: int = 0
    inside: bool = False


class ProgramEnd(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How a process ended that nobody had asked to: with `exit_status`, or by `signal`; neither where nobody knows.

    `lived_ms` is 0 where that is not known. `left`: names and pids of the processes that it left behind, which were
    ended with it. `memory`: it ran out then. `lines`: the last that this very process wrote into its log, bounded,
    without secrets; fleet/drift/exits.py puts it into words.
    """

    at_ms: int
    pid: int = 0
    exit_status: int | None = None
    signal: str = ""
    lived_ms: int = 0
    left: str = ""
    lines: tuple[str, ...] = ()
    memory: OutOfMemory | None = None


class ProgramReport(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """`healthy` is None for a program without a health check, or not probed yet.

    `ends_ms`: when its process ended without being asked to, the last few, newest last; `last_end`: how the last of
    them did, while the program is in trouble or was of late. `port_taken_by`: the process of somebody else that
    listens on its port, while the program is in trouble. `never_healthy`: the process that runs has not passed its
    health check yet, and has had all the time for it that emp.yaml gives.
    """

    state: ProgramState
    pid: int = 0
    since_ms: int = 0
    restarts: int = 0
    exit_status: int | None = None
    healthy: bool | None = None
    detail: str = ""
    ends_ms: tuple[int, ...] = ()
    port_taken_by: str = ""
    last_end: ProgramEnd | None = None
    never_healthy: bool = False


class GpuReport(Struct, frozen=True, kw_only=True, gc=False):
    index: int
    name: str = ""
    memory_mib: int = 0
    uuid: str = ""


class MachineReport(Struct, frozen=True, kw_only=True, gc=False):
    """`gpu_error`: GPUs that cannot be used, and why; a machine without a driver has none.

    `redis`: where this agent's Redis is, `host:port/db`. `rival`: another agent that writes this machine's report,
    `BOOT_ID on HOST`. `package`: the digest of the worker package that workers start from, empty for the emp that the
    machine has; `package_error`: why it is not another one. `build`: the emp that the agent and its supervisord loaded.
    `disk_error`: where it cannot write, and why. `forged`: orders in Redis that nobody of its fleet gave, and that it
    refused. `box`: the identity of the folder of a machine that joined by itself. `together`: why services of this
    container may read what is emp's own there; empty where they may not, and for a machine that is no container.
    """

    machine_id: MachineId
    status: MachineStatus
    boot_id: str
    generation: int
    config_hash: str
    num_gpus: int
    programs: dict[ProgramName, ProgramReport]
    host: str
    agent_version: str
    started_ms: int
    gpus: tuple[GpuReport, ...] = ()
    gpu_error: str = ""
    health_port: int = 0
    error: str = ""
    redis: str = ""
    rival: str = ""
    forged: str = ""
    package: str = ""
    package_error: str = ""
    build: Build | None = None
    disk_error: str = ""
    box: str = ""
    together: str = ""


class Occupant(StrEnum):
    """Who keeps a service from this worker's next job: a run that ignores its interrupt, a run of another worker's
    job, or somebody who is no worker of emp's.
    """

    STUCK = "stuck"
    RUN = "run"
    FOREIGN = "foreign"


class ConnectorReport(Struct, frozen=True, kw_only=True, gc=False):
    """`offers`: the digest of the models and node classes that the service has, '' when it does not tell; of both, how
    many. `warnings`: what a person should know of a service that works. `output_folder`, `temp_folder`: where it
    writes, empty where that is not known.

    `occupied_by`: what else than this worker's job the service is at, in words that name the job or the run; since when
    is `occupied_ms`, 0 where nobody knows. `occupant`: who that is, once it is more than passing.
    """

    status: ConnectorStatus
    detail: str = ""
    version: str = ""
    offers: str = ""
    models: int = 0
    node_classes: int = 0
    warnings: tuple[str, ...] = ()
    output_folder: str = ""
    temp_folder: str = ""
    occupied_by: str = ""
    occupied_ms: int = 0
    occupant: Occupant | None = None


class WorkerReport(Struct, frozen=True, kw_only=True, gc=False):
    """`capabilities["services"]` lists the services whose connectors loaded. `redis` is as in MachineReport.

    `store_error`: why it cannot save what jobs make; empty as far as it knows that it can.
    """

    worker_id: WorkerId
    machine_id: MachineId
    gpu: int
    status: WorkerStatus
    capabilities: dict[str, Any]
    connector_statuses: dict[str, ConnectorReport]
    started_ms: int
    pid: int = 0
    current_job_id: str | None = None
    package: str = ""
    jobs_completed: int = 0
    jobs_failed: int = 0
    redis: str = ""
    store_error: str = ""

    @property
    def unloaded(self) -> dict[str, str]:
        """Services that it should offer and does not, because their connectors did not load: why."""
        offered = self.capabilities.get("services")
        if not isinstance(offered, list):
            return {}
        return {name: c.detail for name, c in self.connector_statuses.items() if name not in offered}


class SeenMachine(Struct, frozen=True, kw_only=True, gc=False):
    report: MachineReport
    seen_ms: int


class SeenWorker(Struct, frozen=True, kw_only=True, gc=False):
    report: WorkerReport
    seen_ms: int


class Malformed(Struct, frozen=True, kw_only=True):
    """A report that does not fit its type: drift, not a crash. `kind` is machine or worker."""

    kind: str
    id: str
    error: str
    seen_ms: int = 0


class DamagedKey(Struct, frozen=True, kw_only=True):
    """A key of emp's in Redis that holds something else. `heals`: the reconciler puts it right by itself."""

    key: str
    expected: str
    found: str
    heals: bool = False


class InstanceState(StrEnum):
    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


class ContainerEnd(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An end of a container's main process. `exit_code` None: nobody knows it any more."""

    at_ms: int
    exit_code: int | None = None


class ContainerState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`word` is the engine's: running, paused, restarting, exited, created, dead. `ends`: its last ones, oldest first,
    as far as the engine remembers; `lived_ms`: how long the run took that ended last, 0 where that is not known.
    `restarts`: how often the engine started it again by itself. `out_of_memory`: the kernel killed something in it.
    `memory_limit`: in bytes, 0 without one. `error`: what the engine could not do. `lines`: the last that it printed,
    bounded, without secrets. `cut_off`: the network of its fleet that it should be in, and is not. `mounts`: what it
    sees there, by their paths inside. `image_now`: what the name of its image means on its host now, empty where that
    has none of that name.
    """

    name: str
    word: str
    ends: tuple[ContainerEnd, ...] = ()
    lived_ms: int = 0
    restarts: int = 0
    out_of_memory: bool = False
    memory_limit: int = 0
    error: str = ""
    unhealthy: bool = False
    lines: tuple[str, ...] = ()
    cut_off: str = ""
    mounts: tuple[str, ...] = ()
    image_now: str = ""

    @property
    def last(self) -> ContainerEnd | None:
        return self.ends[-1] if self.ends else None


class Instance(Struct, frozen=True, kw_only=True):
    """What a runtime knows of a machine it started: the supervisord's life, not what runs in it.

    `boot_id` is the one that the agent of this very life reports; empty where a runtime cannot know it. `container`
    is the container_hash that a container was made with, `image` the id of its image, `host` the Docker host it is on,
    `engine` what that host's engine says of it.
    """

    machine_id: MachineId
    state: InstanceState
    started_ms: int = 0
    boot_id: str = ""
    pid: int = 0
    detail: str = ""
    container: str = ""
    image: str = ""
    host: str = ""
    engine: ContainerState | None = None


class Changed(Struct, frozen=True, kw_only=True):
    """Subjects whose report, life or silence is not as it was; gone ones among them."""

    machines: frozenset[MachineId]
    workers: frozenset[WorkerId]


class Observed(Struct, frozen=True, kw_only=True):
    """One look at the world.

    `observing_since_ms`: since when reads succeed without a gap; nothing is stale on account of a time
    when nobody could have been heard. `instances` are the machines that the runtimes in `answered` know of:
    one of theirs that is not among them does not run.

    `parts` of the control plane, by name; empty where nobody can tell.

    `changed`: what may differ from the look before; None: anything. Then only of these, and of what the caller asked to
    attend to, `seen_ms` is of this very look; the others were heard within `stale_after`.

    `back_ms`: machines that their runtime could not see or nobody could hear for a while, and since when that is over:
    in them nothing is stale on account of the time before. Where that is long past, they are not named.

    `installed`: the emp on this host's disk, which whatever starts here now gets; None where nobody looked. `shut_out`:
    external machines that may not join with what they were given. `damaged`: keys in Redis that are not emp's;
    `blind`: those of the reports among them, so that nobody could be heard. `pools`: what was seen of each;
    `waiting`: the jobs that wait for them.
    """

    now_ms: int
    observing_since_ms: int
    machines: dict[MachineId, SeenMachine]
    workers: dict[WorkerId, SeenWorker]
    instances: dict[MachineId, Instance]
    answered: tuple[RuntimeKind, ...] = ()
    malformed: tuple[Malformed, ...] = ()
    parts: dict[str, ProgramReport] = {}
    changed: Changed | None = None
    back_ms: dict[MachineId, int] = {}
    installed: Build | None = None
    shut_out: frozenset[MachineId] = frozenset()
    damaged: tuple[DamagedKey, ...] = ()
    blind: bool = False
    pools: dict[PoolName, SeenPool] = {}
    waiting: tuple[Waiting, ...] = ()
