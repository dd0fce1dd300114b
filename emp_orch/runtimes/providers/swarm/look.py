"""What a Swarm says of services and their tasks → boxes. Pure; the answers were another program's, so they are checked.

A task is one life of a service's container. Swarm makes a new one when the last ended, or its node went; the old ones
stay for a while, and say why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import MAX_WORDS, Box, BoxState
from emp_orch.plaintext import one_line
from emp_orch.runtimes.providers.base import ProviderError
from emp_orch.runtimes.providers.swarm.service import MEMBER

T = TypeVar("T")

_RUNS = "running"
# What Swarm wants a task to be that is the service's present one.
_PRESENT = ("new", "ready", "running")


class _Annotations(Struct, frozen=True, kw_only=True):
    name: str = field(default="", name="Name")
    labels: dict[str, str] | None = field(default=None, name="Labels")


class Service(Struct, frozen=True, kw_only=True):
    id: str = field(name="ID")
    spec: _Annotations = field(name="Spec")


class _Status(Struct, frozen=True, kw_only=True):
    state: str = field(default="", name="State")
    message: str = field(default="", name="Message")
    err: str = field(default="", name="Err")


class Task(Struct, frozen=True, kw_only=True):
    """`created` is a time as text, which sorts as it does; `wanted` what Swarm wants the task to be."""

    service: str = field(default="", name="ServiceID")
    node: str = field(default="", name="NodeID")
    created: str = field(default="", name="CreatedAt")
    wanted: str = field(default="", name="DesiredState")
    status: _Status = field(default=_Status(), name="Status")


class _Host(Struct, frozen=True, kw_only=True):
    name: str = field(default="", name="Hostname")


class _Node(Struct, frozen=True, kw_only=True):
    id: str = field(name="ID")
    host: _Host = field(default=_Host(), name="Description")


def services_of(found: Any) -> list[Service]:
    return _read(found, list[Service], "services")


def tasks_of(found: Any) -> list[Task]:
    return _read(found, list[Task], "tasks")


def nodes_of(found: Any) -> dict[str, str]:
    """The name of each node by its id."""
    return {node.id: node.host.name for node in _read(found, list[_Node], "nodes")}


def _read(found: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(found, type=kind)
    except msgspec.ValidationError as e:
        raise ProviderError(f"the Swarm's list of {what} cannot be read: {e}") from e


def boxes_of(services: Iterable[Service], tasks: Iterable[Task], nodes: Mapping[str, str]) -> tuple[Box, ...]:
    """One of each service. What is left of one that was removed drains by itself, and is none any more."""
    lives: dict[str, list[Task]] = {}
    for task in tasks:
        lives.setdefault(task.service, []).append(task)
    found = [
        _box(MachineId(member), service.spec.name, lives.get(service.id, []), nodes)
        for service in services
        if (member := (service.spec.labels or {}).get(MEMBER))
    ]
    return tuple(sorted(found, key=lambda box: box.member_id))


def _box(member: MachineId, name: str, lives: list[Task], nodes: Mapping[str, str]) -> Box:
    newest = sorted(lives, key=lambda t: t.created, reverse=True)
    present = next((t for t in newest if t.wanted in _PRESENT), newest[0] if newest else None)
    if present is None:
        return Box(member_id=member, state=BoxState.PENDING, ref=_shown(name), words="no task yet")
    runs = present.status.state == _RUNS and present.wanted == _RUNS
    return Box(
        member_id=member,
        state=BoxState.RUNNING if runs else BoxState.PENDING,
        ref=_shown(name),
        words="" if runs else _shown(_why(present, newest)),
        node=_shown(nodes.get(present.node, present.node)),
    )


def _why(present: Task, newest: list[Task]) -> str:
    """Why the present task does not run; where it is only about to, how the last one ended."""
    if present.status.err:
        return present.status.err
    before = next((t for t in newest if t is not present and t.status.err), None)
    words = present.status.message or present.status.state
    return f"{words}; the one before: {before.status.err}" if before else words


def _shown(text: str) -> str:
    return one_line(text)[:MAX_WORDS]
