"""The line that a person runs on a box, so that it joins: for a box with Docker, and for one with emp."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from emp_orch.errors import UsageError
from emp_orch.fleet.desired.containers import desired_container
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Machine, MachineId, Pool
from emp_orch.render.box import box_of, docker_run
from emp_orch.render.quoting import shell_line
from emp_orch.settings import Settings
from emp_orch.urls import hosts_of


class Lines(NamedTuple):
    docker: str
    plain: str


class PoolLines(NamedTuple):
    """`image` and `environment`: what the template of a rental service takes."""

    docker: str
    plain: str
    image: str
    environment: dict[str, str]


def pool_lines(fleet: Fleet, pool: Pool, *, url: str, token: str) -> PoolLines:
    """The same for every box of `pool` of `fleet`, each word quoted for a shell."""
    join = {"EMP_JOIN_URL": url, "EMP_JOIN_TOKEN": token}
    machine = machine_of_member(pool, MachineId(f"{pool.name}-0"))
    every = machine.gpus.kind is GpuKind.NVIDIA and not machine.gpus.ids
    box = box_of(desired_machine(fleet, machine), desired_container(machine, ()), all_gpus=every)
    name, environment = f"emp-{pool.name}", {"EMP_POOL": str(pool.name), **join}
    docker = docker_run(box, name=name, volume=name, environment=environment)
    plain = shell_line("emp", "machine", "--pool", pool.name, "--stay", variables=join)
    return PoolLines(docker=shell_line(*docker), plain=plain, image=box.image, environment=environment)


def lines(fleet: Fleet, machine: Machine, *, url: str, token: str) -> Lines:
    """Both lines for `machine` of `fleet`, each word quoted for a shell."""
    join = {"EMP_JOIN_URL": url, "EMP_JOIN_TOKEN": token}
    # Which devices a box has, only its person knows.
    every = machine.gpus.kind is GpuKind.NVIDIA and not machine.gpus.ids
    box = box_of(desired_machine(fleet, machine), desired_container(machine, ()), all_gpus=every)
    name = f"emp-{machine.id}"
    docker = docker_run(box, name=name, volume=name, environment={"MACHINE_ID": machine.id, **join})
    plain = shell_line("emp", "machine", machine.id, "--stay", variables=join)
    return Lines(docker=shell_line(*docker), plain=plain)


def checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UsageError(f"--api {url!r} is not the URL of an API", hint="write http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def warnings(settings: Settings, url: str, *, is_loopback: Callable[[str], bool]) -> list[str]:
    """What would keep a machine's box elsewhere from joining, or what it should know."""
    found = _about_api(url, is_loopback)
    if any(map(is_loopback, hosts_of(settings.machine_redis_url))):
        found.append("Redis is reached from this host only; set redis.machine_url to what the box reaches")
    if _is_plain(url, is_loopback):
        found.append("the token and the way to Redis go over plain HTTP; put the API behind https on open networks")
    return found


def pool_warnings(url: str, *, is_loopback: Callable[[str], bool]) -> list[str]:
    """The same of a pool, whose boxes need the API alone."""
    found = _about_api(url, is_loopback)
    if _is_plain(url, is_loopback):
        found.append("the token and all that boxes say go over plain HTTP; put the API behind https on open networks")
    return found


def _about_api(url: str, is_loopback: Callable[[str], bool]) -> list[str]:
    if not is_loopback(urlsplit(url).hostname or ""):
        return []
    return [
        f"{url} is reached from this host only: for boxes elsewhere give --api URL, and an api.host that they reach"
    ]


def _is_plain(url: str, is_loopback: Callable[[str], bool]) -> bool:
    return urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or "")
