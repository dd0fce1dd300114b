"""The provider `swarm`: a member is a service of a Docker Swarm with one replica, and a secret that holds its token."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import Box
from emp_orch.layout import Layout
from emp_orch.options.provider_swarm import options_of
from emp_orch.runtimes.compose.folder import folder_digest
from emp_orch.runtimes.last_words import redacted
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError
from emp_orch.runtimes.providers.swarm.look import boxes_of, nodes_of, services_of, tasks_of
from emp_orch.runtimes.providers.swarm.manager import Manager, manager_of
from emp_orch.runtimes.providers.swarm.service import (
    FLEET,
    FOLDER,
    MEMBER,
    POOL,
    image_of,
    service_name,
    task_template,
)

T = TypeVar("T")
log = logging.getLogger("swarm")

# A whole call, of a few steps; each of them has less.
WITHIN_S = 25.0
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
# Of a container, what may make a box another. Health checks and commands in it are said aloud, too.
_OF_CONTAINERS = frozenset({"create", "start", "die", "oom", "destroy"})


class SwarmProvider:
    """One pool's boxes. Any number of calls may be under way; of one member, one after the other."""

    def __init__(self, making: Making) -> None:
        self._options = options_of(making.options)
        # Two fleets of one name may share a Swarm: what they are called by is in their folders.
        folder = folder_digest(Layout(Path(making.folder).parent))
        self._labels = {FLEET: making.fleet, FOLDER: folder, POOL: str(making.pool)}
        self._host = manager_of(self._options.host, making.hosts)
        self._manager = Manager(self._host)
        self._members: dict[MachineId, threading.Lock] = {}
        self._nodes: dict[str, str] = {}

    async def boxes(self) -> tuple[Box, ...]:
        return await self._within("list its services", self._look)

    async def create(self, launch: Launch) -> None:
        try:
            await self._within(f"create {launch.member_id}", self._create, launch)
        except ProviderError as e:
            raise ProviderError(redacted(e.message, (launch.token,)), hint=e.hint) from None

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        """Swarm gives the box the time that it was created with."""
        await self._within(f"remove {member_id}", self._remove, member_id)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Events are read in a thread; `changed` is called in the caller's loop."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # a loop that has ended
                loop.call_soon_threadsafe(changed)

        following = _Following(self._host, self._labels, tell)
        thread = threading.Thread(target=following.run, name=f"swarm-{self._labels[POOL]}", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            following.end()

    async def aclose(self) -> None:
        self._manager.close()

    # -- in a thread

    def _look(self) -> tuple[Box, ...]:
        services = services_of(self._manager.services(self._labels))
        tasks = tasks_of(self._manager.tasks(self._labels))
        if {task.node for task in tasks} - {"", *self._nodes}:
            self._nodes = nodes_of(self._manager.nodes())
        return boxes_of(services, tasks, self._nodes)

    def _create(self, launch: Launch) -> None:
        labels = self._of(launch.member_id)
        with self._alone(launch.member_id):
            if self._manager.services(labels):
                return
            name, image = service_name(labels), self._manager.pinned(image_of(launch, self._options))
            secret = self._manager.make_secret(name, launch.token, labels)
            template = task_template(launch, self._options, labels=labels, secret=(secret, name), image=image)
            made = False
            try:
                made = self._manager.make_service(name, template, labels)
            finally:
                if not made:
                    with suppress(ProviderError):  # one that a service uses stays
                        self._manager.drop_secrets(labels)

    def _remove(self, member_id: MachineId) -> None:
        labels = self._of(member_id)
        with self._alone(member_id):
            for service in services_of(self._manager.services(labels)):
                self._manager.drop_service(service.id)
            self._manager.drop_secrets(labels)

    def _of(self, member_id: MachineId) -> dict[str, str]:
        return {**self._labels, MEMBER: str(member_id)}

    def _alone(self, member_id: MachineId) -> threading.Lock:
        return self._members.setdefault(member_id, threading.Lock())

    async def _within(self, what: str, call: Callable[..., T], *args: Any) -> T:
        """What `call` returns. It goes on in its thread when its caller gives up, and the next of its member waits."""
        try:
            async with asyncio.timeout(WITHIN_S):
                return await asyncio.to_thread(call, *args)
        except TimeoutError:
            where = f"Docker host {self._host.name} ({self._host.url})"
            raise ProviderError(f"{where} took more than {WITHIN_S:.0f} s to {what}") from None


class _Following:
    """Reads the engine's events in a thread of its own, and begins anew when the connection breaks."""

    def __init__(self, host: Any, labels: dict[str, str], changed: Callable[[], None]) -> None:
        self._manager = Manager(host)
        self._labels = labels
        self._changed = changed
        self._ended = threading.Event()
        self._stop: Callable[[], None] | None = None

    def run(self) -> None:
        failures = 0
        while not self._ended.is_set():
            try:
                for event in self._manager.events(self._began):
                    failures = 0
                    if self._ended.is_set():
                        break
                    if concerns(event, self._labels):
                        self._changed()
            except EmpError as e:
                log.debug("no events of the Swarm: %s", e.message)
            if not self._ended.wait(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]):
                self._changed()  # what happened meanwhile is not known
            failures += 1
        self._manager.close()

    def end(self) -> None:
        self._ended.set()
        if self._stop is not None:
            self._stop()

    def _began(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        if self._ended.is_set():
            stop()


def concerns(event: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a box of the fleet may be another after it. An event of a service has no labels, so its name must do."""
    actor = event.get("Actor")
    attributes = actor.get("Attributes") if isinstance(actor, dict) else None
    if not isinstance(attributes, dict):
        return False
    match event.get("Type"):
        case "node":
            return True
        case "service":
            return str(attributes.get("name", "")).startswith(service_prefix(labels))
        case "container":
            ours = all(attributes.get(name) == value for name, value in labels.items())
            return ours and event.get("Action") in _OF_CONTAINERS
        case _:
            return False


def service_prefix(labels: dict[str, str]) -> str:
    return f"emp-{labels[FLEET]}-".replace("_", "-").replace(".", "-").lower()
