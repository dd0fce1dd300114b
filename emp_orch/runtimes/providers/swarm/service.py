"""What a member's box is as a service of a Swarm: a pure function of what was asked for."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

from docker.types import (
    ContainerSpec,
    DriverConfig,
    Healthcheck,
    Mount,
    Placement,
    Resources,
    RestartPolicy,
    SecretReference,
    TaskTemplate,
)

from emp_orch.fleet.model.fleet import GpuKind
from emp_orch.images import MACHINE_IMAGE
from emp_orch.options.provider_swarm import GPU_RESOURCE, NO_RESOURCE, Options
from emp_orch.render.box import LOG_OPTIONS
from emp_orch.runtimes.providers.base import Launch

FLEET, FOLDER, POOL, MEMBER = "emp.fleet", "emp.folder", "emp.pool", "emp.member"

TOKEN_FILE = "emp-join-token"  # noqa: S105  # a file's name
_MOUNTED = "/run/secrets"
# The engine takes 63 characters, as of a host's name.
LONGEST_NAME = 63
_DIGEST = 8
RESTART_DELAY_NS = 5 * 10**9
_NS = 10**9


def service_name(labels: dict[str, str]) -> str:
    """Also its secret's. It is unique: two fleets of one name, in two folders, may share a Swarm."""
    told = "\0".join(labels[name] for name in (FLEET, FOLDER, POOL, MEMBER))
    digest = hashlib.sha256(told.encode()).hexdigest()[:_DIGEST]
    # A member's id begins with the name of its pool.
    words = f"emp-{labels[FLEET]}-{labels[MEMBER]}".replace("_", "-").replace(".", "-").lower()
    return f"{words[: LONGEST_NAME - _DIGEST - 1].rstrip('-')}-{digest}"


def image_of(launch: Launch, options: Options) -> str:
    return options.image or launch.image or MACHINE_IMAGE


def task_template(
    launch: Launch, options: Options, *, labels: dict[str, str], secret: tuple[str, str], image: str
) -> TaskTemplate:
    """What Swarm is to run. `secret`: id and name of the one that holds the token."""
    return TaskTemplate(
        _container(launch, options, labels, secret, image),
        resources=_resources(launch, options),
        # For ever: whether a member is still wanted, emp says.
        restart_policy=RestartPolicy(condition="any", delay=RESTART_DELAY_NS, max_attempts=0),
        placement=Placement(constraints=list(options.constraints)),
        log_driver=DriverConfig("json-file", dict(LOG_OPTIONS)),
        networks=[options.network] if options.network else None,
    )


def _container(
    launch: Launch, options: Options, labels: dict[str, str], secret: tuple[str, str], image: str
) -> ContainerSpec:
    uid, _, gid = options.user.partition(":")
    variables = {**launch.variables, "EMP_JOIN_TOKEN_FILE": f"{_MOUNTED}/{TOKEN_FILE}"}
    return ContainerSpec(
        image,
        env=[f"{name}={value}" for name, value in sorted(variables.items())],
        labels=labels,
        user=options.user,
        mounts=_mounts(launch, options),
        stop_grace_period=int(launch.stop_s * _NS),
        secrets=[SecretReference(*secret, filename=TOKEN_FILE, uid=uid, gid=gid, mode=0o400)],
        # Swarm would end a box that calls itself ill, with the jobs on it: emp mends what is in it.
        healthcheck=Healthcheck(test=["NONE"]),
        init=True,
        read_only=True,
        cap_drop=["ALL"],
        privileges=cast(Any, {"NoNewPrivileges": True}),  # the SDK does not know it; engines before 27 leave it out
    )


def _mounts(launch: Launch, options: Options) -> list[Mount]:
    # A volume of its own, which goes with the container: a tmpfs of Swarm's may not run what is compiled there.
    found = [Mount("/tmp", None, type="volume")]  # noqa: S108
    if (shm := launch.limits.shm_bytes) is not None:
        found.append(Mount("/dev/shm", None, type="tmpfs", tmpfs_size=shm, tmpfs_mode=0o1777))  # noqa: S108
    found += [Mount(v.target, v.source, type="bind", read_only=v.read_only) for v in launch.volumes]
    for one in options.mounts:
        kind: Literal["bind", "volume"] = "bind" if one.source.startswith("/") else "volume"
        found.append(Mount(one.target, one.source, type=kind, read_only=one.read_only))
    return found


def _resources(launch: Launch, options: Options) -> Resources:
    limits = launch.limits
    kind = options.gpu_resource or (GPU_RESOURCE if launch.gpus is not GpuKind.NONE else NO_RESOURCE)
    found = Resources(
        cpu_limit=None if limits.cpus is None else int(limits.cpus * _NS),
        mem_limit=limits.memory_bytes,
        generic_resources={kind: launch.num_gpus} if kind != NO_RESOURCE and launch.num_gpus else None,
    )
    # A field that the SDK does not know.
    cast(dict[str, Any], found).setdefault("Limits", {})["Pids"] = limits.pids
    return found
