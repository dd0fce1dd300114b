"""What runs on each Docker host, as far as it answers: one that is slow or away holds up nobody else.

A look is one call; when each container began is asked once a life. The engine's own event stream says when that is out
of date, and wakes who follows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct, structs

from emp_orch.errors import EmpError
from emp_orch.fleet.drift import container_state
from emp_orch.fleet.drift.exits import MAX_LINE
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import ContainerEnd, ContainerState, Instance, InstanceState
from emp_orch.plaintext import one_line
from emp_orch.runtimes.compose.connection import EngineAway
from emp_orch.runtimes.compose.containers import Container, Life, nanoseconds
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.runtimes.compose.images import id_of
from emp_orch.runtimes.last_words import shown
from emp_orch.settings import EngineAddress

log = logging.getLogger("docker")

# How long a look waits for a host before its machines count as unknown.
LOOK_S = 4.0
# How long a person's own command waits for one: also for the first answer of a host far away.
ASKED_S = 20.0
# Of a host that is away already only a word is waited for: it may be back.
AWAY_S = 0.1
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
# How far back ends of a container are looked for: what is longer ago says nothing of now.
ENDS_NS = 300 * 10**9
# The engine's buckets: what it calls so many seconds old may have begun since the last look.
YOUNG = ("second", "Restarting", "Created")
# States in which a container's processes are there; the engine is about to start a "restarting" one again.
_LIVES = ("running", "paused", "restarting")

MAX_ENDS = 10

# How often is looked up what the name of an image means now.
NAMES_S = 20.0

MACHINE = "emp.machine"
IMAGE, IMAGE_ID = "emp.image", "emp.image-id"
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


def _unhealthy(container: Container) -> str:
    """The word of the engine for a container whose own health check fails; empty for others."""
    return "unhealthy" if "(unhealthy)" in container.status else ""


def _young(container: Container) -> bool:
    return any(word in container.status for word in YOUNG)


class HostView:
    """One Docker host. `look` may be called by several tasks; one question at a time is under way."""

    def __init__(
        self,
        host: EngineAddress,
        labels: Sequence[str],
        *,
        network: str = "",
        secrets_of: Callable[[MachineId], Iterable[str]] = lambda _: (),
    ) -> None:
        """`network`: that its machines are in; `secrets_of` a machine, which nothing that it prints may show."""
        self.host = host
        self.engine = Engine(host)
        self._labels = tuple(labels)
        self._network = network
        self._secrets_of = secrets_of
        self._asking: asyncio.Future[dict[MachineId, Found]] | None = None
        self._began: dict[str, tuple[Container, Instance]] = {}
        self._names: dict[str, tuple[float, str]] = {}
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

    async def running(self, machine_id: MachineId) -> str | None:
        """The id of the container in which a machine runs: one question, for a person's command. Raises EngineAway."""
        labels = (*self._labels, f"{MACHINE}={machine_id}")
        try:
            async with asyncio.timeout(ASKED_S):
                found = await asyncio.to_thread(self.engine.containers, labels)
        except TimeoutError:
            raise EngineAway(f"{self.engine.named} has not answered within {ASKED_S:.0f} s") from None
        return next((c.id for c in found if c.state in _LIVES), None)

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
        young = _young(container)
        name_means = self._means(container.labels.get(IMAGE, ""))
        same = structs.replace(container, status=f"{'young ' if young else ''}{_unhealthy(container)} {name_means}")
        with self._lock:
            before, known = self._began.get(container.id, (None, None))
        if known is not None and before == same and not young:
            return known
        life = self.engine.life(container.id)  # may be another already than the list said
        instance = self._inspected(machine_id, structs.replace(container, state=life.state), life)
        with self._lock:
            self._began[container.id] = (structs.replace(same, state=life.state), instance)
        return instance

    def _inspected(self, machine_id: MachineId, container: Container, life: Life) -> Instance:
        lives = container.state in _LIVES
        engine = self._state(machine_id, container, life)
        return Instance(
            machine_id=machine_id,
            state=InstanceState.RUNNING if lives else InstanceState.GONE,
            started_ms=max(0, nanoseconds(life.started_at) // 10**6) if lives else 0,
            detail=container_state.told(engine),
            container=container.labels.get(CONTAINER, ""),
            image=container.labels.get(IMAGE_ID) or life.image,
            host=self.host.name,
            engine=engine,
        )

    def _state(self, machine_id: MachineId, container: Container, life: Life) -> ContainerState:
        ends, runs = self._ends(container, life), container.state == container_state.RUNNING
        started, finished = nanoseconds(life.started_at), nanoseconds(life.finished_at)
        return ContainerState(
            name=container.id[:12],
            word=container.state,
            ends=ends,
            lived_ms=max(1, (finished - started) // 10**6) if finished > started > 0 else 0,
            restarts=life.restarts,
            out_of_memory=life.oom_killed,
            memory_limit=life.memory_limit,
            error=one_line(life.error)[:MAX_LINE],
            unhealthy=bool(_unhealthy(container)),
            lines=shown(self.engine.printed(container.id), self._secrets_of(machine_id)) if ends else (),
            cut_off=self._network if runs and self._network not in container.networks else "",
            mounts=container.mounts,
            image_now=self._means(container.labels.get(IMAGE, "")),
        )

    def _means(self, image: str) -> str:
        """The id that a name has here, as it was lately."""
        if not image:
            return ""
        known = self._names.get(image)
        if known is None or time.monotonic() - known[0] > NAMES_S:
            known = self._names[image] = (time.monotonic(), id_of(self.engine, image))
        return known[1]

    def _ends(self, container: Container, life: Life) -> tuple[ContainerEnd, ...]:
        """Those of the present trouble: none of a container that runs well for long."""
        started, finished = nanoseconds(life.started_at), nanoseconds(life.finished_at)
        runs = container.state == container_state.RUNNING
        well = container.state == container_state.PAUSED or (runs and not _young(container))
        if finished <= 0 or well or (runs and life.restarts == 0):
            return ()
        last = ContainerEnd(at_ms=finished // 10**6, exit_code=None if runs else life.exit_code)
        if life.restarts == 0:
            return (last,)
        # What happened after the last end is not asked for: the engine would wait for the time to come.
        told = self.engine.ends(container.id, finished - ENDS_NS, max(started, finished))
        ends = [ContainerEnd(at_ms=at // 10**6, exit_code=code) for at, code in told]
        if not runs:
            ends = [e for e in ends if e.at_ms < started // 10**6] + [last]
        return tuple(ends[-MAX_ENDS:]) or (last,)

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
