"""What stands between a service that answers and its jobs: learning what it has, and its warm-up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import structs

from emp_orch.connectors.base import Connector, RunFailed, Tells
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.matching.offers import Needs, Offers, digest_of, encoded, lacking, missing
from emp_orch.store.queue.offers import TooLarge
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.services.warmup import WarmUp

log = logging.getLogger("emp.worker")

KEEP_EVERY_S = 600.0
# What is asked because of a doubt, is asked at most so often.
DOUBT_EVERY_S = 1.0

# Has a document in Redis for a while longer.
Keep = Callable[[str, bytes], Awaitable[None]]


class _Told:
    """What one service told of itself. `life`: of the process that told it."""

    def __init__(self) -> None:
        self.life = 0
        self.due = True
        self.read_at = 0.0
        self.kept_at: float | None = None
        self.text = b""
        self.digest = ""
        self.models = self.node_classes = 0


class Readiness:
    """One worker's services. `known`: digest → offers of those that tell."""

    def __init__(self, bindings: tuple[ServiceBinding, ...], keep: Keep, *, limit_s: float) -> None:
        """`limit_s`: how long a warm-up may take."""
        self.known: dict[str, Offers] = {}
        self.may_begin = False  # a run of this worker's former life may still go on
        self._keep = keep
        self._told = {b.service: _Told() for b in bindings}
        self._every_s = {b.service: b.discover_s for b in bindings}
        self.using = {b.service: asyncio.Lock() for b in bindings}
        self.warmups = {
            b.service: WarmUp(b.service, b.warmup, limit_s=limit_s) for b in bindings if b.warmup is not None
        }

    async def of(self, service: str, connector: Connector, report: ConnectorReport, *, busy: bool) -> ConnectorReport:
        """`report` of a probe, as far as the service is ready; with what it has. While it is `busy` it is not asked."""
        told = self._told[service]
        if not isinstance(connector, Tells) or report.status is not ConnectorStatus.IDLE:
            return self._with_offers(told, report)
        if connector.life != told.life:
            told.life, told.due = connector.life, True
        if self._is_due(service, told) and not busy:
            await self._learn(service, told, connector)
        await self._keep_on(told)
        return self._with_offers(told, self._warm(service, connector, connector.life, report))

    def doubt(self, service: str) -> None:
        """The service refused what it should have: ask it again at the next probe, if not just now."""
        told = self._told[service]
        told.due = told.due or asyncio.get_running_loop().time() - told.read_at >= DOUBT_EVERY_S

    def lacks(self, service: str, payload: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Needs | None:
        """What a job needs and this worker's service does not have."""
        offers = self.known.get(self._told[service].digest)
        needs = missing(payload, offers) if offers is not None else None
        return lacking(needs, service, capabilities, self.known) if needs is not None else None

    def is_warming(self, service: str) -> bool:
        return service in self.warmups and self.warmups[service].running

    async def close(self) -> None:
        for warmup in self.warmups.values():
            await warmup.close()

    def _is_due(self, service: str, told: _Told) -> bool:
        every_s = self._every_s[service]
        return every_s > 0 and (told.due or asyncio.get_running_loop().time() - told.read_at >= every_s)

    async def _learn(self, service: str, told: _Told, connector: Tells) -> None:
        told.due, told.read_at = False, asyncio.get_running_loop().time()
        try:
            offers = await connector.offers()
        except (RunFailed, TimeoutError) as e:
            log.warning("what %s has is not known anew: %s", service, e or "it took too long to tell")
            return
        except Exception:  # a faulty connector does not end the worker
            log.exception("connector of %s failed to tell what it has", service)
            return
        text = encoded(offers) if offers is not None else b""
        digest = digest_of(text) if text else ""
        if digest == told.digest:
            return
        told.text, told.digest, told.kept_at = text, digest, None
        told.models, told.node_classes = (len(offers.models), len(offers.nodes)) if offers else (0, 0)
        if offers is not None:
            self.known[digest] = offers
            log.info("%s has %d node classes and %d files of models", service, told.node_classes, told.models)
        for gone in self.known.keys() - {t.digest for t in self._told.values()}:
            del self.known[gone]

    async def _keep_on(self, told: _Told) -> None:
        """Before a report names a document, it is in Redis; then it is kept there."""
        now = asyncio.get_running_loop().time()
        if not told.digest or (told.kept_at is not None and now - told.kept_at < KEEP_EVERY_S):
            return
        try:
            await self._keep(told.digest, told.text)
            told.kept_at = now
        except TooLarge as e:
            log.warning("%s", e.message)
            told.digest = ""
        except AWAY:
            pass  # the reporter says so in the log; until it is there, nobody knows what this service has

    def _warm(self, service: str, connector: Connector, life: int, report: ConnectorReport) -> ConnectorReport:
        warmup = self.warmups.get(service)
        if warmup is None or warmup.is_done(life):
            return report
        if self.may_begin:
            warmup.begin(connector, life, self.using[service])
        if warmup.fault and not warmup.running:
            return structs.replace(report, status=ConnectorStatus.ERROR, detail=f"warm-up: {warmup.fault}")
        return structs.replace(report, status=ConnectorStatus.STARTING, detail="warming up")

    def _with_offers(self, told: _Told, report: ConnectorReport) -> ConnectorReport:
        if not told.digest:
            return report
        return structs.replace(report, offers=told.digest, models=told.models, node_classes=told.node_classes)
