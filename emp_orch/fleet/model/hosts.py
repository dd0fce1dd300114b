"""Docker hosts: the one that needs no entry, and which of them are this host."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from emp_orch.fleet.model.fleet import DockerHost, Fleet, Machine
from emp_orch.images import MACHINE_IMAGE

# The engine that `docker` itself speaks with, where emp.yaml does not say otherwise.
LOCAL = "local"

# What containers call the host that they run on (docker's host-gateway).
HOST_GATEWAY = "host.docker.internal"
# What a server listens on that listens on every address.
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # compared, not bound


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_here(host: DockerHost | None) -> bool:
    """Whether containers of this engine share this host's ports and folders. None is the implied `local`."""
    if host is None or host.docker.startswith("unix://"):
        return True
    try:
        address = urlsplit(host.docker)
    except ValueError:
        return False
    return address.scheme == "tcp" and is_loopback(address.hostname or "")


def host_of(machine: Machine) -> str:
    """The name of the Docker host that runs a compose machine."""
    return machine.host or LOCAL


def elsewhere(fleet: Fleet, machine: Machine) -> bool:
    """Whether `machine` is a container on another host than this one."""
    return machine.traits.in_container and not is_here(fleet.hosts.get(host_of(machine)))


def image_build(host: str, url: str, image: str) -> str:
    """The command that makes emp's machine image of that name on the Docker host of that name and address."""
    tag = "" if image == MACHINE_IMAGE else f" --tag {image}"
    return f"emp images build{tag}{'' if host == LOCAL else f' --host {url}'}"
