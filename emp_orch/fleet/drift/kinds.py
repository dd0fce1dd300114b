"""The nouns of a comparison: what is desired, and one difference from it. table.py says when each kind applies."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

from msgspec import Struct, structs

from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Origin, Pool, PoolName, ProgramName, WorkerId
from emp_orch.fleet.model.limits import Limits
from emp_orch.fleet.model.package import WorkerPackage


class Kind(StrEnum):
    REDIS_DAMAGED = "redis-damaged"
    REPORT_MALFORMED = "report-malformed"
    MACHINE_MISSING = "machine-missing"
    MACHINE_BOOTING = "machine-booting"
    MACHINE_STALE = "machine-stale"
    MACHINE_UNREACHABLE = "machine-unreachable"
    CONTAINER_OUTDATED = "container-outdated"
    IMAGE_MOVED = "image-moved"
    CONTAINER_PAUSED = "container-paused"
    CONTAINER_CUT_OFF = "container-cut-off"
    CONTAINER_LOOPING = "container-looping"
    MACHINE_AWAY = "machine-away"
    MEMBER_SILENT = "member-silent"
    CONFIG_BEHIND = "config-behind"
    MACHINE_STARTING = "machine-starting"
    GENERATION_BEHIND = "generation-behind"
    PROGRAM_MISSING = "program-missing"
    PROGRAM_PORT_TAKEN = "program-port-taken"
    PROGRAM_FLAPPING = "program-flapping"
    PROGRAM_FATAL = "program-fatal"
    PROGRAM_WAITING = "program-waiting"
    PROGRAM_STOPPED = "program-stopped"
    PROGRAM_STARTING = "program-starting"
    PROGRAM_UNHEALTHY = "program-unhealthy"
    PROGRAM_SURPLUS = "program-surplus"
    WORKER_WRONG_MACHINE = "worker-wrong-machine"
    WORKER_MISSING = "worker-missing"
    WORKER_STALE = "worker-stale"
    WORKER_OUTDATED = "worker-outdated"
    AGENT_OUTDATED = "agent-outdated"
    SUPERVISORD_OUTDATED = "supervisord-outdated"
    EMP_OUTDATED = "emp-outdated"
    WORKER_WRONG_CAPABILITIES = "worker-wrong-capabilities"
    WORKER_STARTING = "worker-starting"
    CONNECTOR_BROKEN = "connector-broken"
    CONNECTOR_UNHEALTHY = "connector-unhealthy"
    STORE_BROKEN = "store-broken"
    SERVICE_STUCK = "service-stuck"
    SERVICE_OCCUPIED = "service-occupied"
    WORKER_SURPLUS = "worker-surplus"
    MACHINE_CONFLICT = "machine-conflict"
    ORDERS_FORGED = "orders-forged"
    MACHINE_WRONG_REDIS = "machine-wrong-redis"
    DISK_FULL = "disk-full"
    GPU_LOST = "gpu-lost"
    GPU_MISSING = "gpu-missing"
    SERVICE_SHARED_FOLDERS = "service-shared-folders"
    CONTROL_DOWN = "control-down"
    MACHINE_FOREIGN = "machine-foreign"
    MACHINE_SURPLUS = "machine-surplus"
    POOL_SHORT = "pool-short"
    POOL_OVER = "pool-over"
    MEMBER_GONE = "member-gone"


# These stand beside what is right or wrong in the machine otherwise: they neither hide it nor hold up a rollout.
BESIDE = frozenset(
    {
        *(Kind.MACHINE_CONFLICT, Kind.GPU_LOST, Kind.GPU_MISSING, Kind.CONNECTOR_BROKEN, Kind.CONTROL_DOWN),
        *(Kind.SERVICE_SHARED_FOLDERS, Kind.SERVICE_OCCUPIED, Kind.EMP_OUTDATED, Kind.DISK_FULL),
        *(Kind.IMAGE_MOVED, Kind.STORE_BROKEN, Kind.ORDERS_FORGED, Kind.REDIS_DAMAGED),
        *(Kind.POOL_SHORT, Kind.POOL_OVER, Kind.MEMBER_GONE),
    }
)
# What a machine lacks of the generation in force: to give it that is the rollout's.
BEHIND = frozenset(
    {
        *(Kind.CONFIG_BEHIND, Kind.CONTAINER_OUTDATED, Kind.WORKER_OUTDATED),
        *(Kind.AGENT_OUTDATED, Kind.SUPERVISORD_OUTDATED),
    }
)
# Nobody hears the machine: what it runs of a generation is not known from itself.
UNHEARD = frozenset(
    {
        *(Kind.MACHINE_MISSING, Kind.MACHINE_BOOTING, Kind.MACHINE_STALE),
        *(Kind.MACHINE_UNREACHABLE, Kind.MACHINE_AWAY, Kind.MACHINE_CONFLICT),
        *(Kind.CONTAINER_PAUSED, Kind.CONTAINER_CUT_OFF, Kind.CONTAINER_LOOPING, Kind.MEMBER_SILENT),
    }
)
CONNECTOR_GRACE_MS = 60_000
# The machine that the parts of the control plane are said to be on.
CONTROL = MachineId("control")


class Drift(Struct, frozen=True, kw_only=True):
    """One difference. `subject` is a machine, program, worker or pool; `origin` the line of emp.yaml it comes from.

    `seen_ms` is the subject's last report when that matters for acting on it (surplus workers, silent members that are
    to be forgotten; 0: it never reported). `began_ms` is when the
    difference came about, as far as a report tells: before it was detected.
    """

    kind: Kind
    machine_id: MachineId
    subject: str
    desired: str
    observed: str
    cause: str
    origin: Origin
    program: ProgramName | None = None
    seen_ms: int | None = None
    began_ms: int | None = None
    pool: PoolName = PoolName("")
    count: int = 0

    @property
    def key(self) -> str:
        """Identifies the same drift across ticks."""
        return f"{self.kind}/{self.machine_id}/{self.subject}"


class Desired(Struct, frozen=True, kw_only=True, dict=True):
    """One generation, ready to compare. `digests` are the machines' config_hash: taken once, not at each look.

    `package` is what workers are to run, None in generations that do not say; `emp` the digest of the emp that was
    applied, all else is to run that, empty where nobody knows; `redis` where machines of this host find
    Redis, as `host:port/db`, empty where nobody knows. `members` of `pools` are among the machines; `former` are those
    of pools that emp.yaml names no more.
    """

    generation: int
    machines: dict[MachineId, DesiredMachine]
    digests: dict[MachineId, str]
    stale_after_ms: int
    max_unavailable: int
    prune: bool
    limits: Limits
    package: WorkerPackage | None = None
    emp: str = ""
    redis: str = ""
    max_unavailable_percent: int | None = None
    pools: dict[PoolName, Pool] = {}
    members: dict[MachineId, Member] = {}
    former: dict[MachineId, Member] = {}

    @cached_property
    def workers(self) -> frozenset[WorkerId]:
        """All that its machines are to have."""
        return frozenset(w for m in self.machines.values() for w in m.workers)

    @cached_property
    def unjoined(self) -> frozenset[MachineId]:
        """Members whose box is not in: it was asked for, or has left."""
        return frozenset(i for i, m in self.members.items() if m.state is not MemberState.IN)

    @cached_property
    def ranks(self) -> dict[MachineId, int]:
        """The place of each machine in emp.yaml."""
        return {machine_id: n for n, machine_id in enumerate(self.machines)}

    def is_leaving(self, machine_id: MachineId) -> bool:
        """Whether it is a member that is to go: it serves nobody any more."""
        member = self.members.get(machine_id)
        return member is not None and member.leaving_ms > 0


def with_machines(desired: Desired, changed: Mapping[MachineId, DesiredMachine]) -> Desired:
    """`desired` with these machines in place of its own."""
    digests = {i: config_hash(m) for i, m in changed.items()}
    return structs.replace(desired, machines={**desired.machines, **changed}, digests={**desired.digests, **digests})


def grace_ms(kind: Kind, limits: Limits) -> int:
    """How long a difference must have stood before anything is done about it."""
    match kind:
        case Kind.CONNECTOR_UNHEALTHY:
            return CONNECTOR_GRACE_MS
        case Kind.SERVICE_STUCK:
            return limits.stuck_ms
        case _:
            return 0
