"""What runs on each Docker host, as far as it answers: one that is slow or away holds up nobody else.

A look is one call; when each container began is asked once a life. The engine's own event stream says when that is out
of date, and wakes who follows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct, structs

from emp_orch.errors import EmpError
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import Instance, InstanceState
from emp_orch.runtimes.engine import Container, Engine, Life
from emp_orch.settings import EngineAddress

log = logging.getLogger("docker")

# How long a look waits for a host before its machines count as unknown.
LOOK_S = 4.0
# Of a host that is away already only a word is waited for: it may be back.
AWAY_S = 0.1
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
# States in which a container's processes are there; the engine is about to start a "restarting" one again.
_LIVES = ("running", "paused", "restarting")

MACHINE = "emp.machine"
CONTAINER = "emp.container"


class Found(Struct, frozen=True, kw_only=True):
    """A machine's container, and what that means for the machine."""

    container: Container
    instance: Instance


class Away(Struct, frozen=True, kw_only=True):
    """Why a host's machines cannot be seen, and since when (ms, our clock); None: it was never seen to answer."""

    why: str
    since_ms: int | None

    @property
    def detail(self) -> str:
        if self.since_ms is None:
            return self.why
        since = datetime.fromtimestamp(self.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.why} (since {since})"


class HostView:
    """One Docker host. `look` may be called by several tasks; one question at a time is under way."""

    def __init__(self, host: EngineAddress, labels: Sequence[str]) -> None:
        self.host = host
        self.engine = Engine(host)
        self._labels = tuple(labels)
        self._asking: asyncio.Future[dict[MachineId, Found]] | None = None
        self._began: dict[str, tuple[str, Instance]] = {}
        self._lock = threading.Lock()
        self._seen: dict[MachineId, Found] = {}
        self._answered = False
        self.away: Away | None = None

    async def look(self) -> dict[MachineId, Found] | Away:
        """Each machine's container; or why that cannot be known now."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._look))
            # Nobody may be waiting any more when it fails.
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        try:
            async with asyncio.timeout(LOOK_S if self.away is None else AWAY_S):
                self._seen = await asyncio.shield(self._asking)
        except TimeoutError:
            return self._is_away(f"{self.engine.named} has not answered within {LOOK_S:.0f} s")
        except EmpError as e:
            return self._is_away(e.message)
        if self.away is not None:
            log.info("%s answers again", self.engine.named)
        self.away, self._answered = None, True
        return self._seen

    def _is_away(self, why: str) -> Away:
        # The first reason stands: what is shown must not change with every look.
        if self.away is None:
            self.away = Away(why=why, since_ms=int(time.time() * 1000) if self._answered else None)
            log.warning("%s; its machines are unknown until it answers", why)
        return self.away

    @property
    def last_seen(self) -> frozenset[MachineId]:
        """Machines that were here when the host answered last."""
        return frozenset(self._seen)

    def _look(self) -> dict[MachineId, Found]:
        containers = [c for c in self.engine.containers(self._labels) if c.labels.get(MACHINE)]
        with self._lock:
            ids = {c.id for c in containers}
            self._began = {i: b for i, b in self._began.items() if i in ids}
        found: dict[MachineId, Found] = {}
        for container in sorted(containers, key=lambda c: c.state in _LIVES):
            machine_id = MachineId(container.labels[MACHINE])
            found[machine_id] = Found(container=container, instance=self._instance(machine_id, container))
        return found

    def _instance(self, machine_id: MachineId, container: Container) -> Instance:
        with self._lock:
            state, known = self._began.get(container.id, ("", None))
        if known is not None and state == container.state:
            return known
        life = self.engine.life(container.id)  # may be another already than the list said
        instance = self._inspected(machine_id, structs.replace(container, state=life.state), life)
        with self._lock:
            self._began[container.id] = (life.state, instance)
        return instance

    def _inspected(self, machine_id: MachineId, container: Container, life: Life) -> Instance:
        made_with, name = container.labels.get(CONTAINER, ""), container.id[:12]
        if container.state in _LIVES:
            return Instance(
                machine_id=machine_id,
                state=InstanceState.RUNNING,
                started_ms=_ms(life.started_at),
                detail="" if container.state == "running" else f"its container {name} is {container.state}",
                container=made_with,
                host=self.host.name,
            )
        why = f"its container {name} is {container.state}"
        if container.state == "exited":
            why = f"its container {name} ended with exit {life.exit_code}"
            why += ": it ran out of memory" if life.oom_killed else f": {life.error}" if life.error else ""
        return Instance(
            machine_id=machine_id, state=InstanceState.GONE, detail=why, container=made_with, host=self.host.name
        )

    # -- told by the engine

    def follow(self, changed: Callable[[], None], stopped: threading.Event) -> None:
        """For a thread: call `changed` whenever something happens to one of our containers, until `stopped`."""
        engine, failures = Engine(self.host), 0
        while not stopped.is_set():
            try:
                for container_id in engine.events(self._labels):
                    failures = 0
                    with self._lock:
                        self._began.pop(container_id, None)
                    if stopped.is_set():
                        break
                    changed()
            except EmpError as e:
                log.debug("no events of %s: %s", self.host.name, e.message)
            with self._lock:
                self._began.clear()  # what happened meanwhile is not known
            stopped.wait(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1
        engine.close()


def _ms(text: str) -> int:
    """RFC 3339, as Docker writes it with nanoseconds, to ms; 0 for what is none."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    try:
        at = datetime.fromisoformat(head).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return max(0, int(at.timestamp() * 1000) + int((fraction + "000")[:3] if fraction[:3].isdecimal() else 0))
