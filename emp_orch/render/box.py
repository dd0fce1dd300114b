"""What a machine's container is, whoever makes it: for compose.yaml and for the line of a box that joins."""

from __future__ import annotations

import math

from msgspec import Struct

from emp_orch.fleet.desired.containers import HOME, OWN
from emp_orch.fleet.desired.values import DesiredContainer, DesiredMachine, ProgramKind
from emp_orch.fleet.desired.worker_command import WORKER_STOP_MARGIN_S
from emp_orch.fleet.model.hosts import HOST_GATEWAY
from emp_orch.images import built_here
from emp_orch.render.quoting import docker_csv

# What `emp machine --stay` takes beyond its programs: supervisord's own end, and time for those that must be killed.
BOX_STOP_MARGIN_S = 60.0
# What a service compiles there must run; Docker's own default is noexec.
TMPFS = ("/tmp:mode=1777,exec",)  # noqa: S108
LOG_OPTIONS = (("max-size", "20m"), ("max-file", "3"))


class Box(Struct, frozen=True, kw_only=True):
    """`volumes`: paths of its host, the container's, and whether they are only read. Of `memory`, `memory_and_swap` and
    `shm`, in bytes, None is what its host has, or Docker gives. `gpus`: device ids; `all_gpus`: every one of its host.
    """

    image: str
    never_pulled: bool
    volumes: tuple[tuple[str, str, bool], ...]
    gpus: tuple[str, ...]
    all_gpus: bool
    memory: int | None
    memory_and_swap: int | None
    shm: int | None
    cpus: str | None
    pids: int
    stop_s: int
    home: str = HOME
    own: str = OWN
    tmpfs: tuple[str, ...] = TMPFS
    cap_drop: tuple[str, ...] = ("ALL",)
    security_opt: tuple[str, ...] = ("no-new-privileges:true",)
    restart: str = "unless-stopped"
    extra_hosts: tuple[str, ...] = (f"{HOST_GATEWAY}:host-gateway",)
    log_driver: str = "json-file"
    log_options: tuple[tuple[str, str], ...] = LOG_OPTIONS


def box_of(machine: DesiredMachine, container: DesiredContainer, *, all_gpus: bool = False) -> Box:
    """That of `machine` in `container`, which may be one that somebody else makes."""
    limits = container.limits
    memory = limits.memory_bytes
    return Box(
        image=container.made_from,
        never_pulled=built_here(container.made_from),
        volumes=tuple((v.source, v.target, v.read_only) for v in container.volumes),
        gpus=() if all_gpus else container.gpus,
        all_gpus=all_gpus,
        memory=memory,
        # Without it Docker gives as much swap again: what is out of memory would crawl instead of ending.
        memory_and_swap=None if memory is None else memory + (limits.swap_bytes or 0),
        shm=limits.shm_bytes,
        cpus=None if limits.cpus is None else f"{limits.cpus:g}",
        pids=limits.pids,
        stop_s=math.ceil(stop_grace_s(machine)),
    )


def stop_grace_s(machine: DesiredMachine) -> float:
    """How long the machine may take to stop in order: workers drain first, then its services end."""
    services = [p.stop.timeout_s for p in machine.programs if p.kind is not ProgramKind.WORKER]
    return machine.drain_timeout_s + WORKER_STOP_MARGIN_S + max(services, default=0.0) + BOX_STOP_MARGIN_S


def docker_run(box: Box, *, name: str, volume: str, environment: dict[str, str]) -> list[str]:
    """The words of `docker run` that make it, its services' files in `volume`, emp's in one beside that."""
    words = ["docker", "run", "--detach", "--name", name, "--init", "--read-only"]
    words += [w for place in box.tmpfs for w in ("--tmpfs", place)]
    words += ["--restart", box.restart, "--stop-timeout", str(box.stop_s)]
    words += [w for cap in box.cap_drop for w in ("--cap-drop", cap)]
    words += [w for option in box.security_opt for w in ("--security-opt", option)]
    words += [w for host in box.extra_hosts for w in ("--add-host", host)]
    words += ["--log-driver", box.log_driver, *(w for k, v in box.log_options for w in ("--log-opt", f"{k}={v}"))]
    words += ["--pids-limit", str(box.pids)]
    sizes = {"--memory": box.memory, "--memory-swap": box.memory_and_swap, "--shm-size": box.shm, "--cpus": box.cpus}
    words += [w for option, value in sizes.items() if value is not None for w in (option, str(value))]
    words += ["--volume", f"{volume}:{box.home}", "--volume", f"{volume}-own:{box.own}"]
    for source, target, read_only in box.volumes:
        # Unlike --volume, it makes no empty folder where there is none.
        mount = [docker_csv("type=bind"), docker_csv(f"source={source}"), docker_csv(f"target={target}")]
        words += ["--mount", ",".join([*mount, *(["readonly"] if read_only else [])])]
    if box.all_gpus or box.gpus:
        # Several devices are one value of a comma-separated option.
        words += ["--gpus", "all" if box.all_gpus else docker_csv(f"device={','.join(box.gpus)}")]
    words += [w for k, v in environment.items() for w in ("--env", f"{k}={v}")]
    return [*words, box.image]
