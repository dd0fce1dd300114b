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
# What Swarm wants a task to be that is the service's present one, and one that is to go with its service.
_PRESENT = ("new", "ready", "running")
_REMOVED = "remove"
_ENDED = ("complete", "shutdown", "failed", "rejected", "orphaned", "remove")
_DOWN = "down"


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


class _Container(Struct, frozen=True, kw_only=True):
    labels: dict[str, str] | None = field(default=None, name="Labels")


class _TaskSpec(Struct, frozen=True, kw_only=True):
    container: _Container = field(default=_Container(), name="ContainerSpec")


class Task(Struct, frozen=True, kw_only=True):
    """`created` is a time as text, which sorts as it does; `wanted` what Swarm wants the task to be."""

    service: str = field(default="", name="ServiceID")
    node: str = field(default="", name="NodeID")
    created: str = field(default="", name="CreatedAt")
    wanted: str = field(default="", name="DesiredState")
    status: _Status = field(default=_Status(), name="Status")
    spec: _TaskSpec = field(default=_TaskSpec(), name="Spec")

    @property
    def said(self) -> str:
        """The engine's own words: what is wrong, else what it is about."""
        return self.status.err or self.status.message

    @property
    def goes(self) -> bool:
        """Whether its service was removed, and it has not ended yet."""
        return self.wanted == _REMOVED and self.status.state not in _ENDED


class _Host(Struct, frozen=True, kw_only=True):
    name: str = field(default="", name="Hostname")


class _NodeStatus(Struct, frozen=True, kw_only=True):
    state: str = field(default="", name="State")
    message: str = field(default="", name="Message")


class Node(Struct, frozen=True, kw_only=True):
    id: str = field(name="ID")
    host: _Host = field(default=_Host(), name="Description")
    status: _NodeStatus = field(default=_NodeStatus(), name="Status")

    @property
    def down(self) -> bool:
        return self.status.state == _DOWN


def services_of(found: Any) -> list[Service]:
    return _read(found, list[Service], "services")


def tasks_of(found: Any) -> list[Task]:
    return _read(found, list[Task], "tasks")


def nodes_of(found: Any) -> dict[str, Node]:
    """By their ids."""
    return {node.id: node for node in _read(found, list[Node], "nodes")}


def _read(found: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(found, type=kind)
    except msgspec.ValidationError as e:
        raise ProviderError(f"the Swarm's list of {what} cannot be read: {e}") from e


def boxes_of(services: Iterable[Service], tasks: Iterable[Task], nodes: Mapping[str, Node]) -> tuple[Box, ...]:
    """One of each member: of its service, or of what is left of one that was removed, while that still drains."""
    lives: dict[str, list[Task]] = {}
    for task in tasks:
        lives.setdefault(task.service, []).append(task)
    found: dict[MachineId, Box] = {}
    for service in services:
        if member := (service.spec.labels or {}).get(MEMBER):
            found[MachineId(member)] = _box(member, service.spec.name, lives.pop(service.id, []), nodes)
    for left in (task for tasks_left in lives.values() for task in tasks_left if task.goes):
        member = (left.spec.container.labels or {}).get(MEMBER)
        node = nodes.get(left.node)
        # On a node that is gone nobody says for a day that it ended.
        if member and not (node is not None and node.down):
            found.setdefault(MachineId(member), _leaving(member, left, node))
    return tuple(found[member] for member in sorted(found))


def _box(member: str, name: str, lives: list[Task], nodes: Mapping[str, Node]) -> Box:
    newest = sorted(lives, key=lambda t: t.created, reverse=True)
    present = next((t for t in newest if t.wanted in _PRESENT), newest[0] if newest else None)
    if present is None:
        return Box(member_id=MachineId(member), state=BoxState.PENDING, ref=_shown(name), words="no task yet")
    node = nodes.get(present.node)
    runs = present.status.state == _RUNS and present.wanted == _RUNS
    words = "" if runs else _why(present, newest)
    if runs and node is not None and node.down:
        runs, words = False, f"node {node.host.name} is down: {node.status.message}"
    return Box(
        member_id=MachineId(member),
        state=BoxState.RUNNING if runs else BoxState.PENDING,
        ref=_shown(name),
        words=_shown(words),
        node=_shown(node.host.name if node else present.node),
    )


def _why(present: Task, newest: list[Task]) -> str:
    """Why the present task does not run; where it is only about to, how the last one ended."""
    if present.status.err:
        return present.status.err
    before = next((t for t in newest if t is not present and t.status.err), None)
    words = present.status.message or present.status.state
    return f"{words}; the one before: {before.status.err}" if before else words


def _leaving(member: str, left: Task, node: Node | None) -> Box:
    return Box(
        member_id=MachineId(member),
        state=BoxState.RUNNING,
        ref=_shown(left.service),
        words="it was removed, and is shutting down",
        node=_shown(node.host.name if node else left.node),
    )


def _shown(text: str) -> str:
    return one_line(text)[:MAX_WORDS]
