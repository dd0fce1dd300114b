"""The reconciler: observe → drift → plan → execute, as the leader. An event wakes it early; only state decides."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from emp_orch.control import generation as generations
from emp_orch.control import identity
from emp_orch.control.execute import Executor
from emp_orch.control.job_care import JobCare
from emp_orch.control.memory import Entry, Recollection
from emp_orch.control.observe import Observer
from emp_orch.control.requests import as_operation
from emp_orch.errors import EmpError
from emp_orch.fleet import policy
from emp_orch.fleet.drift import Desired, diff
from emp_orch.fleet.observed import Observed
from emp_orch.fleet.plan import Operation, plan, remedy
from emp_orch.layout import Layout
from emp_orch.store import journal, requests
from emp_orch.store.artifacts import Artifacts
from emp_orch.store.connect import TRANSIENT, Client, drop_idle, within
from emp_orch.store.events import Event, Events
from emp_orch.store.generations import Generation
from emp_orch.store.keys import Keys
from emp_orch.store.leader import Leadership
from emp_orch.store.status import FleetStatus, read_status, write_status

log = logging.getLogger("reconcile")

LEASE_S = 10.0
# A tick that takes as long as the lease could act after it; it is given up before.
TICK_S = 8.0
# A Redis that hangs must not keep us from stopping.
RESIGN_S = 3.0
# Between two ticks at least, so that a burst of events costs one tick.
SETTLE_S = 0.05
BACKOFF_S = (0.2, 0.5, 1.0, 2.0)
DEFAULT_INTERVAL_S = 2.0


class Reconciler:
    """One candidate for leadership of one fleet. `run` lasts until it is cancelled."""

    def __init__(
        self,
        r: Client,
        keys: Keys,
        layout: Layout,
        fleet: str,
        who: str,
        observer: Observer,
        executor: Executor,
        artifacts: Artifacts,
    ) -> None:
        self._r = r
        self._keys = keys
        self._layout = layout
        self._fleet = fleet
        self._observer = observer
        self._executor = executor
        self._leadership = Leadership(r, keys, fleet, who, ttl_ms=int(LEASE_S * 1000))
        self._events = Events(r, keys)
        self._memory = Recollection()
        self._epoch: int | None = None
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, list[str]] = {}
        self._group = asyncio.TaskGroup()
        self._jobs = JobCare(r, keys, artifacts, self._group)
        self._told: tuple[object, ...] = ()
        self._interval_s = DEFAULT_INTERVAL_S
        # Drawn once: what is shown as the next attempt must not move from tick to tick.
        self._jitter = random.random()  # noqa: S311  # spreads load, guards nothing

    async def run(self) -> None:
        async with self._group as group:
            group.create_task(self._listen(), name="listen")
            await self._loop()

    async def resign(self) -> None:
        """Give the lease back, so that another may lead at once."""
        async with within(RESIGN_S):
            await self._leadership.release()

    async def _loop(self) -> None:
        failures = 0
        while True:
            try:
                async with within(TICK_S):
                    await self.tick()
                failures = 0
                await self._pause()
            except TRANSIENT as e:
                if failures == 0:
                    why = str(e) or f"a look took longer than {TICK_S:g} s"
                    log.warning("nothing is seen: %s; nothing is done until it is", why)
                self._observer.lost()
                self._jobs.lost()
                await drop_idle(self._r)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
            except EmpError as e:
                log.error("%s (%s)", e.message, e.hint)
                await asyncio.sleep(self._interval_s)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)
        self._wake.clear()

    async def _listen(self) -> None:
        """Follow the events: each wakes the loop, and `command_done` ends an operation under way."""
        after = ""
        while True:
            try:
                after = after or await self._events.latest_id()
                async for batch in self._events.follow(after):
                    for event in batch:
                        after = event.id
                        await self._hear(event)
            except TRANSIENT:
                await asyncio.sleep(BACKOFF_S[1])

    async def _hear(self, event: Event) -> None:
        if event.type.startswith(("job_", "drift_", "operation_")):
            return
        if event.type == "command_done":
            key, error = str(event.data.get("operation")), str(event.data.get("error", ""))
            self._memory.ended(key, ok=bool(event.data.get("ok")))
            if not event.data.get("ok"):
                log.warning("%s: %s", key, error)
            await self._answer(key, error)
        self._wake.set()

    # -- one tick

    async def tick(self) -> None:
        """Observe, compare, plan, act: once."""
        if not await self._lead():
            return
        current = await generations.current(self._r, self._keys, self._layout, self._fleet)
        await self._jobs.sweep(current)
        if current is None:
            return
        desired = generations.as_desired(current)
        self._memory.follow(current.number)
        self._interval_s = current.fleet.reconcile.interval_s
        observed = await self._observer.look()
        await self._jobs.tend(current, observed)
        await self._answer_requests(desired, observed)
        await self._reconcile(current, desired, observed)

    async def _lead(self) -> bool:
        """Hold the lease, or say who does."""
        epoch, holder = await self._leadership.acquire()
        if epoch is None and identity.is_dead(holder):
            await self._leadership.take_from(holder)
            epoch, holder = await self._leadership.acquire()
        if epoch is not None and epoch != self._epoch:
            log.info("leading %s with epoch %d", self._fleet, epoch)
            self._memory = Recollection(under_way=self._memory.of(self._running))
            self._memory.resume(await self._last_status())
        if epoch is None and self._epoch is not None:
            log.warning("%s leads now; standing by", holder)
        self._epoch = epoch
        return epoch is not None

    async def _last_status(self) -> FleetStatus | None:
        try:
            return await read_status(self._r, self._keys, self._fleet)
        except EmpError as e:
            log.warning("%s; onsets of drift start anew", e.message)
            return None

    async def _reconcile(self, current: Generation, desired: Desired, observed: Observed) -> None:
        drifts = diff(desired, observed)
        operations = plan(desired, drifts)
        paused = await self._paused()
        decision = policy.gate(
            operations,
            desired,
            observed,
            self._memory.attempts,
            paused=paused,
            jitter=self._jitter,
        )
        entries = self._memory.observe(drifts, observed.now_ms)
        for operation in decision.run:
            if self._begin(operation, desired, observed.now_ms):
                entries.append(("operation_begun", {"operation": operation.key, "text": operation.text}))
        self._memory.forget_settled(operations, observed.now_ms)
        items = tuple(
            self._memory.status_of(d, o, policy.describe(d, o, decision)) for d in drifts for o in [remedy(d, desired)]
        )
        status = FleetStatus(
            fleet=self._fleet,
            generation=current.number,
            leader=self._leadership.who,
            epoch=self._epoch or 0,
            at_ms=observed.now_ms,
            interval_ms=int(self._interval_s * 1000),
            drift=items,
            plan=tuple(o.text for o in operations),
            paused=paused,
        )
        await self._publish(status, entries)

    async def _publish(self, status: FleetStatus, entries: list[Entry]) -> None:
        """Write the status each tick, and tell everybody when what it says has changed."""
        await write_status(self._r, self._keys, status)
        await self._record(entries)
        told = (status.generation, status.drift, status.paused)
        if told != self._told:
            self._told = told
            await self._events.append(
                "drift_changed", fleet=self._fleet, generation=status.generation, count=len(status.drift)
            )

    async def _record(self, entries: list[Entry]) -> None:
        for type_, data in entries:
            log.info("%s %s", type_, " ".join(f"{k}={v}" for k, v in data.items()))
        await journal.write(self._r, self._keys, self._fleet, entries)

    async def _paused(self) -> str:
        """Why nobody may act now; empty when acting is fine."""
        pause = await requests.read_pause(self._r, self._keys, self._fleet)
        return f"{pause.reason} (by {pause.by})" if pause else ""

    # -- acting

    def _begin(self, operation: Operation, desired: Desired, now_ms: int) -> bool:
        """Start an operation beside the loop: a machine's stop may take as long as its drain. False: it runs."""
        if operation.key in self._running:
            return False
        self._memory.began(operation, now_ms)
        task = self._group.create_task(self._operate(operation, desired), name=operation.key)
        self._running[operation.key] = task
        return True

    async def _operate(self, operation: Operation, desired: Desired) -> None:
        outcome: dict[str, object] = {"operation": operation.key}
        try:
            done = await self._executor.run(operation, desired, self._epoch or 0)
            outcome["outcome"] = "done" if done else "sent"
        except EmpError as e:
            done = True
            outcome |= {"outcome": "failed", "error": e.message, "hint": e.hint}
        except TRANSIENT as e:
            done = True
            outcome |= {"outcome": "failed", "error": str(e)}
        if done:
            self._memory.ended(operation.key, ok=outcome["outcome"] == "done")
            await self._answer(operation.key, str(outcome.get("error", "")))
        self._running.pop(operation.key, None)
        self._wake.set()
        with suppress(*TRANSIENT):  # the log has it; the journal is not worth a crash
            await self._record([("operation_ended", outcome)])

    # -- what people ask

    async def _answer_requests(self, desired: Desired, observed: Observed) -> None:
        """Take up what API and CLI asked for; each is answered with an event `request_done`."""
        taken = {request_id for ids in self._asked.values() for request_id in ids}
        for request_id, request in await requests.pending(self._r, self._keys, self._fleet):
            if request_id in taken:
                continue
            try:
                operation = as_operation(request, desired, observed)
            except EmpError as e:
                await requests.answer(self._r, self._keys, self._fleet, request_id, error=e.message)
                continue
            log.info("asked by %s: %s", request.by if request else "?", operation.text)
            self._asked.setdefault(operation.key, []).append(request_id)
            # A person's word is also the reset of the backoff.
            self._memory.attempts.pop(operation.key, None)
            self._begin(operation, desired, observed.now_ms)

    async def _answer(self, key: str, error: str) -> None:
        """Tell whoever asked for operation `key` what came of it."""
        for request_id in self._asked.pop(key, []):
            with suppress(*TRANSIENT):
                await requests.answer(self._r, self._keys, self._fleet, request_id, error=error)
