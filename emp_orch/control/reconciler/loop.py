"""The reconciler's loop: a round at least each interval, earlier on an event, later while Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from emp_orch import again
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.reconciler.redis_backend import RedisBackend
from emp_orch.control.reconciler.rounds import Reconciler
from emp_orch.errors import EmpError
from emp_orch.store.fleet.events import Event, Events
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.redis.client import TRANSIENT, Client, drop_idle, within
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

# A tick that takes as long as the lease could act after it; it is given up before.
TICK_S = 8.0
# Between two ticks, and two looks for events, at least: a burst of events costs one of each.
SETTLE_S = 0.05
# Between two rounds that jobs alone ask for, waiting or done: a stream of them costs a few rounds a second.
JOBS_S = 0.5
BACKOFF_S = (0.2, 0.5, 1.0, 2.0)
MAX_TOLD_ERROR = 1_000


# Told of a job that waits for a worker.
_JOB_WAITS = frozenset({"job_submitted", "job_requeued"})
# What workers and services are while nothing is wrong with them, by event.
_AT_WORK = {"worker_status": frozenset({"idle", "busy"}), "connector_status": frozenset({"idle", "active"})}


def is_work(event: Event) -> bool:
    """Whether an event tells only that a worker, or its service, took up a job or has done with one."""
    fine = _AT_WORK.get(event.type, frozenset())
    return event.data.get("status") in fine and event.data.get("previous") in fine


def _is_before(one: str, other: str) -> bool:
    """Of two ids of a stream."""
    (a, b), (c, d) = one.split("-"), other.split("-")
    return (int(a), int(b)) < (int(c), int(d))


class Loop:
    """Drives one reconciler until it is cancelled."""

    def __init__(
        self, r: Client, keys: Keys, reconciler: Reconciler, backend: RedisBackend, election: LeaderElection
    ) -> None:
        self._r = r
        self._reconciler = reconciler
        self._backend = backend
        self._election = election
        self._events = Events(r, keys)
        self._woken = asyncio.Event()
        self._in_order = False  # as of the last round
        self._jobs_at_s = float("-inf")

    def wake(self) -> None:
        """Let the next round come now."""
        self._woken.set()

    def parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What is to run until cancelled."""
        named = ((self._rounds, "rounds"), (self._listen, "events"), (self._election.keep, "lease"))
        return tuple(again.for_ever(part, what, log) for part, what in named)

    async def _rounds(self) -> None:
        failures, told, loop = 0, "", asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                async with within(TICK_S):
                    done = await self._reconciler.tick()
                self._in_order = done is not None and not done.items
                failures, told = 0, ""
                await self._pause(loop.time() - began_s)
            except TRANSIENT as e:
                if failures == 0:
                    why = str(e) or f"a look took longer than {TICK_S:g} s"
                    why = e.words if isinstance(e, KeyDamaged) else why
                    log.warning("nothing is seen: %s; nothing is done until it is", why)
                self._backend.lost()
                self._reconciler.lost()
                await drop_idle(self._r)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
            except NotLeader as e:
                self._election.stand_by(e)
                self._reconciler.stand_by()
                await self._pause()
            except EmpError as e:
                if e.message != told:
                    log.error("%s (%s)", e.message, e.hint)
                told = e.message
                await asyncio.sleep(self._backend.interval_s())
            except Exception as e:  # nobody foresaw it: it costs this round, and the next may not meet it
                words = f"{type(e).__name__}: {e}"[:MAX_TOLD_ERROR]
                if words != told:
                    log.exception("this round failed; the next looks at everything anew")
                told = words
                self._backend.lost()
                self._reconciler.lost()
                await asyncio.sleep(self._backend.interval_s())

    async def _pause(self, took_s: float = 0.0) -> None:
        """Until something happens, or the interval has passed. A round that `took_s` is followed by as long a pause:
        a fleet in which something happens all the time, as when a thousand boxes join, costs half a core.
        """
        try:
            async with asyncio.timeout(self._election.wait_s(self._backend.interval_s())):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(SETTLE_S, min(took_s, self._backend.interval_s())))
        self._woken.clear()

    async def _listen(self) -> None:
        """Follow the events: each wakes the loop, and `command_done` ends an operation under way."""
        after = ""
        while True:
            try:
                after = after or await self._events.latest_id()
                async for batch in self._events.follow(after, pause_s=SETTLE_S):
                    for event in batch:
                        after = event.id
                        await self._hear(event)
                    if not batch and _is_before(await self._events.latest_id(), after):
                        after = ""  # another stream stands there: to wait behind the old one would be for ever
                        break
            except TRANSIENT:
                await asyncio.sleep(BACKOFF_S[1])

    def _wake_for_jobs(self) -> None:
        """Now, or once JOBS_S have passed since jobs did so last."""
        loop = asyncio.get_running_loop()
        at_s = max(loop.time(), self._jobs_at_s + JOBS_S)
        if loop.time() > self._jobs_at_s:  # else one is on its way
            self._jobs_at_s = at_s
            loop.call_at(at_s, self.wake)

    async def _hear(self, event: Event) -> None:
        if event.type in _JOB_WAITS and self._backend.may_grow:
            self._wake_for_jobs()
        if event.type.startswith(("job_", "drift_", "operation_")):
            return
        if is_work(event):
            if not self._in_order:  # else nothing waits for a worker to be idle
                self._wake_for_jobs()
            return
        if event.type == "command_done":
            key, error = str(event.data.get("operation")), str(event.data.get("error", ""))
            if not event.data.get("ok"):
                error = error or "it failed, and the machine did not say why"
                log.warning("%s: %s", key, error)
            await self._reconciler.reported(key, error=error if not event.data.get("ok") else "")
        self.wake()
