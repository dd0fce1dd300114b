"""A service's warm-up: one run of a workflow after each of its starts, before it is given jobs. No job of the queue."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterable
from typing import Any

from emp_orch.connectors.base import Connector, Run, RunFailed
from emp_orch.connectors.sanitise import MAX_REPORT_CHARS, words
from emp_orch.jobs.document.model import Job, Output
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.worker.limits import INTERRUPT_S

log = logging.getLogger("emp.worker")

FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0


class _Nowhere:
    """A sink that keeps nothing."""

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
        return Output(name=name, content_type=content_type, size=size, sha256="", path="")

    def begin_anew(self) -> None:
        """Nothing was kept."""


async def _untold(_: object) -> None:
    """Nobody waits for its progress."""


class WarmUp:
    """The warm-up of one service. `life`: of which life of it, see Tells."""

    def __init__(self, service: str, payload: dict[str, Any], *, limit_s: float) -> None:
        self._service = service
        self._payload = payload
        self._limit_s = limit_s
        self._done = -1
        self._tried = -1
        self._failures = 0
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self.fault = ""
        self.ended = asyncio.Event()

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def is_done(self, life: int) -> bool:
        return self._done == life and not self.running

    def begin(self, connector: Connector, life: int, using: asyncio.Lock) -> None:
        """Run it, unless it is being run, or failed a moment ago in this life. `using`: held while it runs."""
        if self.running:
            return
        if life != self._tried:
            self._failures, self._not_before, self.fault = 0, 0.0, ""
        if asyncio.get_running_loop().time() < self._not_before:
            return
        self._tried = life
        self._task = asyncio.create_task(self._tell(connector, life, using), name=f"warm up {self._service}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _tell(self, connector: Connector, life: int, using: asyncio.Lock) -> None:
        async with using:
            log.info("warming up %s", self._service)
            self.fault = await self._fault(connector)
        if self.fault:
            pause = min(FIRST_PAUSE_S * 2**self._failures, MAX_PAUSE_S)
            self._failures += 1
            self._not_before = asyncio.get_running_loop().time() + pause
            log.error("warm-up of %s: %s; once more in %g s", self._service, self.fault, pause)
        else:
            self._done, self._failures = life, 0
            log.info("%s is warm", self._service)
        self.ended.set()

    async def _fault(self, connector: Connector) -> str:
        """What went wrong, in the service's words; '' when nothing did."""
        run = Run(job=self._job(), sink=_Nowhere(), on_progress=_untold, on_began=_untold)
        try:
            async with asyncio.timeout(self._limit_s):
                await connector.run(run)
        except RunFailed as e:
            return words(e.error.message, MAX_REPORT_CHARS // 2)
        except TimeoutError:
            await self._stop(connector)
            return f"it took longer than {self._limit_s:g} s"
        except Exception as e:  # a faulty connector does not end the worker
            log.exception("warm-up of %s", self._service)
            return words(f"{type(e).__name__}: {e}", MAX_REPORT_CHARS // 2)
        return ""

    async def _stop(self, connector: Connector) -> None:
        try:
            async with asyncio.timeout(INTERRUPT_S):
                await connector.cancel()
        except (RunFailed, TimeoutError) as e:
            log.warning("the warm-up of %s was not stopped: %s", self._service, e or "no answer in time")

    def _job(self) -> Job:
        """The form in which a connector takes it; no queue has ever heard of it."""
        return Job(
            id=f"warmup-{os.urandom(6).hex()}",
            service=self._service,
            status=JobStatus.IN_PROGRESS,
            priority=0,
            requirements=Requirements(service=self._service),
            lane="",
            attempts=1,
            max_retries=0,
            created_ms=0,
            payload=self._payload,
        )
