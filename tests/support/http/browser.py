"""One Chromium and one stack for a file of tests of the page; every test begins with an empty Redis and a new page."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, expect

from emp_orch.fleet.model.observed import ConnectorStatus, WorkerStatus
from support.http.stack import Producer, Stack, fleet_of
from support.tree import TESTS

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SOON_MS = 15_000
# Chromium gives up what is on its way when an interface of the host comes or goes, as when somebody's container starts
# beside the tests. The page has to live with that, but it is no complaint of the page's.
HOST_CHANGED = "net::ERR_NETWORK_CHANGED"
AXE = TESTS / "browser" / "vendor" / "axe.min.js"


class Watched:
    """A page, and everything it complained about or fetched."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.urls: list[str] = []
        page.on("console", lambda m: self._note(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self.urls.append(r.url))
        self.unanswered: set[str] = set()
        page.on("request", lambda r: self.unanswered.add(r.url))
        page.on("requestfinished", lambda r: self.unanswered.discard(r.url))

    def _note(self, complaint: str) -> None:
        if HOST_CHANGED not in complaint:
            self.complaints.append(complaint)

    @classmethod
    async def new(cls, browser: Browser, **context: Any) -> Watched:
        made: BrowserContext = await browser.new_context(**context)
        return cls(await made.new_page())

    async def open(self, monitor: str | Stack, place: str = "") -> Page:
        url = monitor if isinstance(monitor, str) else monitor.monitor
        await self.page.goto(f"{url}/{place}")
        try:
            await expect(self.page.locator("#connection")).to_have_text("live", timeout=SOON_MS)
        except AssertionError as e:
            raise AssertionError(f"{e}\ncomplaints: {self.complaints}\nunanswered: {sorted(self.unanswered)}") from e
        # A reload would lose it.
        await self.page.evaluate("window.sameDocument = true")
        return self.page

    async def not_reloaded(self) -> bool:
        return bool(await self.page.evaluate("window.sameDocument === true"))

    async def close(self) -> None:
        await self.page.context.close()


async def populate(producer: Producer) -> None:
    """One machine, as desired: an idle worker and a busy one."""
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.worker("m1", 0)
    await producer.worker("m1", 1, status=WorkerStatus.BUSY, connector=ConnectorStatus.ACTIVE, job="job-7")
    await producer.status()


async def problems(page: Page) -> list[str]:
    """What axe finds wrong that is serious or worse. It runs from outside, so the page's policy stays as it is."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']}: {json.dumps([n['html'][:160] for n in v['nodes'][:3]])}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
