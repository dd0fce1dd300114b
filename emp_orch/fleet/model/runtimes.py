"""What a machine's runtime is like, in facts that the rest asks for. Nobody else asks which kind it is.

A new runtime is a kind, and a row of the table here; what starts and stops its machines is in runtimes/.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class RuntimeKind(StrEnum):
    """As emp.yaml and stored generations say it."""

    PROCESS = "process"
    COMPOSE = "compose"
    EXTERNAL = "external"


class RuntimeTraits(Struct, frozen=True, kw_only=True):
    """Facts about the machines of one runtime, seen from the host of the control plane.

    `shares_host`: they are its processes, so that its ports, folders, GPUs and environment are theirs.
    `in_container`: each is a container of a Docker host, with a network, an image and published ports of its own.
    `joins`: each is a box of its own that comes to the API, is given its secrets and login there, and can be shut out.
    `seen`: emp can tell whether one lives; otherwise one that nobody sees may run all the same.
    `started`: emp starts and stops them; otherwise only a person can.
    `reached`: emp can look inside: run a command, read logs, measure use.
    """

    shares_host: bool
    in_container: bool
    joins: bool
    seen: bool
    started: bool
    reached: bool


_TRAITS: Mapping[RuntimeKind, RuntimeTraits] = {
    RuntimeKind.PROCESS: RuntimeTraits(
        shares_host=True, in_container=False, joins=False, seen=True, started=True, reached=True
    ),
    RuntimeKind.COMPOSE: RuntimeTraits(
        shares_host=False, in_container=True, joins=False, seen=True, started=True, reached=True
    ),
    RuntimeKind.EXTERNAL: RuntimeTraits(
        shares_host=False, in_container=False, joins=True, seen=False, started=False, reached=False
    ),
}


def traits_of(kind: RuntimeKind) -> RuntimeTraits:
    """What machines of this kind are like."""
    return _TRAITS[kind]
