"""The line that a person runs on a box, so that it joins: for a box with Docker, and for one with emp."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from emp_orch.errors import UsageError
from emp_orch.fleet.model import GpuKind, Machine
from emp_orch.images import MACHINE_IMAGE
from emp_orch.render.compose import HOME
from emp_orch.render.quoting import docker_csv, shell_line
from emp_orch.settings import Settings
from emp_orch.store.artifact_url import is_local


class Lines(NamedTuple):
    docker: str
    plain: str


def lines(machine: Machine, *, url: str, token: str) -> Lines:
    """Both lines, each word quoted for a shell."""
    join = {"EMP_JOIN_URL": url, "EMP_JOIN_TOKEN": token}
    docker = ["docker", "run", "--detach", "--name", f"emp-{machine.id}", "--init", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108  # the container's
    docker += ["--restart", "unless-stopped", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    docker += ["--volume", f"emp-{machine.id}:{HOME}", *_gpus(machine)]
    for name, value in {"MACHINE_ID": machine.id, **join}.items():
        docker += ["--env", f"{name}={value}"]
    docker.append(machine.image or MACHINE_IMAGE)
    plain = shell_line("emp", "machine", machine.id, "--stay", variables=join)
    return Lines(docker=shell_line(*docker), plain=plain)


def _gpus(machine: Machine) -> list[str]:
    if machine.gpus.kind is not GpuKind.NVIDIA:
        return []
    # Several devices are one value of a comma-separated option.
    return ["--gpus", docker_csv(f"device={','.join(machine.gpus.ids)}") if machine.gpus.ids else "all"]


def checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UsageError(f"--api {url!r} is not the URL of an API", hint="write http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def warnings(settings: Settings, url: str, *, is_loopback: Callable[[str], bool]) -> list[str]:
    """What would keep a box elsewhere from joining, or what it should know."""
    found = []
    if is_loopback(urlsplit(url).hostname or ""):
        found.append(f"{url} is reached from this host only; give --api URL, and an api.host other hosts reach")
    if is_loopback(urlsplit(settings.machine_redis_url).hostname or ""):
        found.append("Redis is reached from this host only; set redis.machine_url to what the box reaches")
    if urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or ""):
        found.append("the token and the way to Redis go over plain HTTP; put the API behind https on open networks")
    if is_local(settings.artifacts):
        found.append("what jobs make there stays on that box: jobs.artifacts is a folder of this host")
    return found
