"""What one page in one Chromium is asked: when it shows something useful, how busy it is, how smoothly it moves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WAIT_MS = 30_000

# The milliseconds since the navigation at which `useful` was first on the screen: found by the first frame after it.
_PAINTED = """(useful) => {
    window.painted = new Promise((done) => {
        const watching = new MutationObserver(() => {
            if (!document.querySelector(useful)) return;
            watching.disconnect();
            requestAnimationFrame(() => setTimeout(() => done(performance.now())));
        });
        watching.observe(document, {childList: true, subtree: true});
    });
}"""

# Tasks of more than 50 ms, from now on.
_LONG = """() => {
    window.longTasks = [];
    new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((e) => e.duration)))
        .observe({entryTypes: ["longtask"]});
}"""

# Scrolls by 60 px a frame, up and down again at the end; answers with the time between each two frames.
_SCROLLED = """(seconds) => new Promise((done) => {
    const gaps = [];
    const end = performance.now() + seconds * 1000;
    let before = null;
    let by = 60;
    const frame = (now) => {
        if (before !== null) gaps.push(now - before);
        before = now;
        if (performance.now() > end) return done(gaps);
        const at = scrollY;
        scrollBy(0, by);
        if (scrollY === at) by = -by;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""

# From each letter typed until the frame that shows what it led to.
_TYPED = """() => {
    window.typed = new Promise((done) => {
        const shown = ({timeStamp: began}) =>
            requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
        addEventListener("input", shown, {capture: true, once: true});
    });
}"""


class Busy(Struct, frozen=True, kw_only=True):
    """The main thread over `seconds`: how long it worked, and how long its long tasks were."""

    seconds: float
    busy_s: float
    script_s: float
    layout_s: float
    long_ms: tuple[float, ...]

    @property
    def percent(self) -> float:
        return 100 * self.busy_s / self.seconds


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


class Looker:
    """A page of its own: nothing is cached of another."""

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self._cdp: CDPSession = self._context.new_cdp_session(self.page)
        self._cdp.send("Performance.enable")

    def close(self) -> None:
        self._context.close()

    def open(self, url: str, useful: str) -> float:
        """Milliseconds from the navigation until `useful` is on the screen."""
        self.page.add_init_script(f"({_PAINTED})({useful!r})")
        self.page.goto(url)
        self.page.wait_for_selector(useful, timeout=WAIT_MS)
        return float(self.page.evaluate("window.painted"))

    def watch(self) -> None:
        self.page.evaluate(_LONG)

    def counted(self) -> dict[str, float]:
        found = self._cdp.send("Performance.getMetrics")["metrics"]
        return {str(m["name"]): float(m["value"]) for m in found}

    def busy(self, before: dict[str, float]) -> Busy:
        """Since `before` was counted."""
        now = self.counted()
        long_ms = tuple(float(ms) for ms in self.page.evaluate("window.longTasks"))

        def spent(name: str) -> float:
            return now[name] - before[name]

        return Busy(
            seconds=spent("Timestamp"),
            busy_s=spent("TaskDuration"),
            script_s=spent("ScriptDuration"),
            layout_s=spent("LayoutDuration") + spent("RecalcStyleDuration"),
            long_ms=long_ms,
        )

    def busy_for(self, seconds: float) -> Busy:
        """From now on."""
        before = self.counted()
        self.page.wait_for_timeout(seconds * 1_000)
        return self.busy(before)

    def elements(self) -> int:
        return int(self.page.evaluate("document.querySelectorAll('*').length"))

    def scroll(self, seconds: float) -> list[float]:
        """Milliseconds between frames while the page is scrolled."""
        gaps: list[Any] = self.page.evaluate(_SCROLLED, seconds)
        return [float(ms) for ms in gaps]

    def type(self, text: str) -> list[float]:
        """Milliseconds from each letter in the search field until the frame that shows what it finds."""
        self.page.keyboard.press("/")
        took: list[float] = []
        for letter in text:
            self.page.evaluate(_TYPED)
            self.page.keyboard.type(letter)
            took.append(float(self.page.evaluate("window.typed")))
        return took
