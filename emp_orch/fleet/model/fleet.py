"""What an emp.yaml says, as frozen values: the Fleet and its parts.

Built by manifest/; every default comes from schema/emp.schema.json. A field that has one here too is younger than
generations that may still be stored.
Durations are seconds, sizes bytes. `origin` is `file:line:column` and takes no part in any hash.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NewType

from msgspec import Struct

from emp_orch.fleet.model.allotment import Allotment
from emp_orch.fleet.model.defaults import PIDS, STUCK_AFTER_S
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.model.runtimes import RuntimeKind, RuntimeTraits, traits_of
from emp_orch.roles import Role

MachineId = NewType("MachineId", str)
ServiceName = NewType("ServiceName", str)
PoolName = NewType("PoolName", str)
ProgramName = NewType("ProgramName", str)
WorkerId = NewType("WorkerId", str)

# The name of the agent in every machine's supervisord (templates/supervisord.conf.j2).
AGENT = ProgramName("agent")

Origin = str

EMBEDDED = "embedded"


class Scale(StrEnum):
    """How many programs a service gets on one machine."""

    PER_GPU = "per_gpu"
    PER_MACHINE = "per_machine"
    ONCE = "once"


class ControlRuntime(StrEnum):
    """What the control plane itself runs as."""

    PROCESS = "process"
    COMPOSE = "compose"


class GpuKind(StrEnum):
    NONE = "none"
    NVIDIA = "nvidia"


class SecretRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret by reference. `source` is `env` or `file`; `name` a variable's name or a path. `optional`: where it has
    no value, a program runs without.
    """

    source: str
    name: str
    optional: bool = False

    @property
    def key(self) -> str:
        """How the resolved value is found in secrets.json."""
        return f"{self.source}:{self.name}"


EnvValue = str | SecretRef


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to ask a program whether it works: exactly one of the first three is set.

    `http` is a path on the program's port, e.g. `/system_stats`; `tcp` a port of this host or HOST:PORT; `command` ends
    with 0 when all is well.
    """

    http: str = ""
    tcp: str = ""
    command: tuple[str, ...] = ()
    interval_s: float
    timeout_s: float
    failures: int
    startup_s: float


class Stop(Struct, frozen=True, kw_only=True):
    signal: str
    timeout_s: float


class Install(Struct, frozen=True, kw_only=True):
    """A set-up step that runs once before the service; skipped when the path `creates` exists."""

    command: tuple[str, ...]
    creates: str | None


class ModelSection(Struct, frozen=True, kw_only=True):
    """A section of ComfyUI's extra_model_paths, in order: base_path, is_default, folders by kind, each on a line."""

    name: str
    paths: tuple[tuple[str, str | bool], ...]


class Checkout(Struct, frozen=True, kw_only=True):
    """What a `builtin: comfyui` service is started from. Paths are those of the machine that runs it.

    `python` None: the checkout's own virtual environment. `args` are words of ComfyUI's command line, with runtime
    variables unreplaced.
    """

    path: str
    python: str | None = None
    args: tuple[str, ...] = ()
    model_folders: tuple[str, ...] = ()
    model_sections: tuple[ModelSection, ...] = ()


class Service(Struct, frozen=True, kw_only=True):
    """Exactly one of `command` and `builtin` is set. `${port} ${gpu} ${machine_id}` are still unreplaced here.

    `connector_options` are JSON values; the connector reads them. `checkout` is set where `builtin` is comfyui.
    `discover_s`: how often workers ask what it has; 0: never. `warmup`: the payload that is run after each of its
    starts, JSON, or ''. `inherit`: names that its programs take over from the shell of the apply.
    """

    name: ServiceName
    scale: Scale
    command: tuple[str, ...] | None
    builtin: str | None
    connector: str | None
    connector_options: dict[str, Any] = {}
    port: int | None
    health: Health | None
    install: Install | None
    env: dict[str, EnvValue]
    cwd: str | None
    stop: Stop
    start_s: float
    depends_on: tuple[ServiceName, ...]
    origin: Origin
    checkout: Checkout | None = None
    discover_s: float = 0.0
    warmup: str = ""
    inherit: tuple[str, ...] = ()


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """`capabilities` are the user's own, merged over what the worker finds out."""

    capabilities: dict[str, Any]
    drain_timeout_s: float
    job_timeout_s: float


class Gpus(Struct, frozen=True, kw_only=True):
    """`ids` empty: slots 0 … num_gpus−1."""

    kind: GpuKind
    ids: tuple[str, ...]


class Volume(Struct, frozen=True, kw_only=True):
    """A folder of a container's host that it sees too. Both paths are absolute."""

    source: str
    target: str
    read_only: bool


class Limits(Struct, frozen=True, kw_only=True):
    """What a container may use at most; None: whatever its host has, or Docker gives. `swap_bytes` beside the memory:
    None is none. `pids`: processes and threads.
    """

    memory_bytes: int | None = None
    shm_bytes: int | None = None
    cpus: float | None = None
    swap_bytes: int | None = None
    pids: int = PIDS


class DockerTls(Struct, frozen=True, kw_only=True):
    """Paths of PEM files, relative to the folder of emp.yaml."""

    ca: str
    cert: str
    key: str


class DockerHost(Struct, frozen=True, kw_only=True):
    """A Docker Engine. `docker` is a unix://, ssh:// or tcp:// address without password; only tcp:// has `tls`."""

    docker: str
    tls: DockerTls | None


class Machine(Struct, frozen=True, kw_only=True):
    """One machine after `defaults:` were merged and `replicas` expanded.

    `host`, `image`, `publish`, `volumes` and `limits` are a container's: of no effect with processes. Of an external
    machine the line of `emp machine join` has all but `host` and `publish`. `inherit`: names that all its programs take
    over from the shell of the apply. `pool`: whose member it is; such a one is in no emp.yaml and in no generation.
    """

    id: MachineId
    runtime: RuntimeKind
    num_gpus: int
    services: tuple[ServiceName, ...]
    env: dict[str, EnvValue]
    gpus: Gpus
    host: str | None
    image: str | None
    ports: dict[ServiceName, int]
    port_offset: int
    health_port: int
    labels: dict[str, str]
    worker: WorkerSpec
    origin: Origin
    publish: tuple[ServiceName, ...] = ()
    volumes: tuple[Volume, ...] = ()
    limits: Limits = Limits()
    inherit: tuple[str, ...] = ()
    pool: PoolName = PoolName("")

    @property
    def traits(self) -> RuntimeTraits:
        """What its runtime is like."""
        return traits_of(self.runtime)


class PoolScale(Struct, frozen=True, kw_only=True):
    """How the size of a pool follows the queue: a GPU for every `jobs_per_gpu` jobs; more members once more are wanted
    for `up_after_s`, fewer once fewer are for `down_after_s`.
    """

    jobs_per_gpu: float
    up_after_s: float
    down_after_s: float


class Pool(Struct, frozen=True, kw_only=True):
    """Machines that nobody names beforehand: `min_size` to `max_size` members, each made from `template`, whose id is
    empty. `provider` is a name of an entry point of emp.providers, `options` are its own. `cost` of a member tells
    which of two pools is cheaper, in any unit. A member that is silent for `forget_after_s` is none any more.
    """

    name: PoolName
    provider: str
    min_size: int
    max_size: int
    template: Machine
    scale: PoolScale
    forget_after_s: float
    cost: float
    options: dict[str, Any]
    origin: Origin


class MemberState(StrEnum):
    """`expected`: its box was asked for and has not joined. `in`: it joined. `left`: it went in good order."""

    EXPECTED = "expected"
    IN = "in"
    LEFT = "left"


class Member(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine of a pool: nobody named it beforehand, and it is no part of a generation.

    `born_ms` tells its tokens from those of a former member of the same id; `joined_ms` is when it was first let in, 0:
    never. `name`: what its box calls itself by, if it does; `box` the identity of the folder that joined last, and
    `life` how often it was another one before: the tokens of those are void. `leaving_ms`: since when it is to go,
    0: it is not; `why` says so in words. Times are ms of Redis TIME.
    """

    id: MachineId
    pool: PoolName
    state: MemberState
    born_ms: int
    joined_ms: int = 0
    name: str = ""
    leaving_ms: int = 0
    why: str = ""
    box: str = ""
    life: int = 0


class TokenSpec(Struct, frozen=True, kw_only=True):
    """A token of the API by name. `previous` is valid too; `rate_count` requests in `rate_s`, 0: any number."""

    name: str
    role: Role
    token: SecretRef
    previous: SecretRef | None
    rate_count: int
    rate_s: float

    @property
    def refs(self) -> tuple[tuple[str, SecretRef], ...]:
        """Where its values come from, by the key in emp.yaml."""
        return (("token", self.token), *((("previous", self.previous),) if self.previous else ()))


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a server listens. `token` is needed when `host` is not loopback; `tokens` are let in beside it.

    `machine_url` is how machines on other hosts reach it, empty when that was not said. `role` is what may be done
    there, whoever asks.
    """

    host: str
    port: int
    token: SecretRef | None
    machine_url: str = ""
    tokens: tuple[TokenSpec, ...] = ()
    role: Role = Role.OPERATE


class RedisSpec(Struct, frozen=True, kw_only=True):
    """`url` is `embedded` or a URL, possibly with a password: it never leaves this host's 0600 files. `replicas` are to
    have what must not be lost before it counts.
    """

    url: str
    port: int
    machine_url: str
    prefix: str
    replicas: int = 0


class InputsSpec(Struct, frozen=True, kw_only=True):
    """`hosts` may be named by the URL of an input; `keep_s`: how long an asset that no job needs is kept."""

    hosts: tuple[str, ...]
    keep_s: float
    max_bytes: int


class JobsSpec(Struct, frozen=True, kw_only=True):
    """`artifacts` empty: the folder that every machine of this host shares. `inputs` None: a generation from before."""

    artifacts: str
    keep_count: int
    keep_age_s: float
    lease_s: float
    inputs: InputsSpec | None = None
    affinity: bool = True


class BudgetSpec(Struct, frozen=True, kw_only=True):
    """How often one program may be tried, and one machine restarted, within a window."""

    program: int
    machine: int
    window_s: float


class BreakerSpec(Struct, frozen=True, kw_only=True):
    """`share` (0 … 1) of the machines that may fail within the window before emp stops acting by itself."""

    share: float
    window_s: float
    probe_s: float


class RolloutSpec(Struct, frozen=True, kw_only=True):
    min_healthy_s: float
    progress_deadline_s: float
    rollback: bool


class ReconcileSpec(Struct, frozen=True, kw_only=True):
    """`max_unavailable`: of all machines; with `max_unavailable_percent` (1 … 100) the least of each pool and of the
    named machines (fleet/policy/allowance)."""

    interval_s: float
    stale_after_s: float
    max_unavailable: int
    prune: bool
    budget: BudgetSpec
    breaker: BreakerSpec
    rollout: RolloutSpec
    # Generations of earlier versions do not say.
    stuck_after_s: float = STUCK_AFTER_S
    max_unavailable_percent: int | None = None


class ControlSpec(Struct, frozen=True, kw_only=True):
    """`image` None: the one that emp builds. Both images are of effect with containers only."""

    runtime: ControlRuntime
    image: str | None
    redis_image: str


class ImageThere(Struct, frozen=True, kw_only=True):
    """What the name `image` meant on Docker host `host` when it was applied: an id, and where a registry has it, the
    name with a digest by which it can be pulled again.
    """

    host: str
    image: str
    id: str
    digest: str = ""


class Fleet(Struct, frozen=True, kw_only=True):
    """Everything one emp.yaml describes. Without a `worker_package`, workers run that of the emp which applies.

    `allotment`: the GPUs of the host where it was applied that somebody else gave emp there; None: all.
    `images`: what the names of its containers' images meant on their hosts then, as far as those answered.
    `machines` are those of emp.yaml; where it is read to act by, the members of its pools too (fleet/desired/members),
    and `members` says what is known of those. Neither is ever stored with it.
    """

    name: str
    redis: RedisSpec
    api: Endpoint
    monitor: Endpoint
    services: dict[ServiceName, Service]
    machines: tuple[Machine, ...]
    jobs: JobsSpec
    reconcile: ReconcileSpec
    hosts: dict[str, DockerHost] = {}
    control: ControlSpec = ControlSpec(runtime=ControlRuntime.PROCESS, image=None, redis_image="")
    worker_package: WorkerPackage | None = None
    allotment: Allotment | None = None
    images: tuple[ImageThere, ...] = ()
    pools: dict[PoolName, Pool] = {}
    members: tuple[Member, ...] = ()
