"""Takes the README's pictures of the monitor page: `python docs/screenshot.py [DIR]`, docs/images by default.

It brings up the default emp.yaml with four GPU slots in a folder of its own, gives it jobs, takes a port from one
of its services, and takes it down again. Uses playwright with the system's Chromium (CHROMIUM names another one).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from playwright.sync_api import Browser, Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SLOTS = 4
WAIT_MS = 60_000

# The breathing dots never end.
SETTLED = """Promise.allSettled(document.getAnimations()
    .filter((a) => a.effect.getTiming().iterations === 1).map((a) => a.finished))"""


class Fleet:
    """The default fleet on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = (ROOT / "emp.yaml").read_text()
        first = _free_ports(4 + SLOTS)
        self.comfyui = first + 4
        self.api, self.page = f"http://127.0.0.1:{first + 1}", f"http://127.0.0.1:{first + 2}"
        for old, new in (
            ("url: embedded ", f"port: {first}\n  url: embedded "),
            ("port: 3331", f"port: {first + 1}"),
            ("port: 3333", f"port: {first + 2}"),
            ("port: 8299", f"port: {first + 3}"),
            ("port: 8188", f"port: {first + 4}"),
        ):
            text = text.replace(old, new, 1)
        (folder / "emp.yaml").write_text(text)

    def emp(self, *args: str) -> None:
        argv = [sys.executable, "-m", "emp_orch", "-C", str(self.folder), *args]
        env = {**os.environ, "NUM_GPUS": str(SLOTS), "PYTHONPATH": str(ROOT)}
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)

    def submit(self, count: int) -> None:
        """Pictures to make; every ninth cannot be made."""
        jobs = self.folder / "jobs.jsonl"
        payloads: list[dict[str, Any]] = [
            {"prompt": "a fox in the snow", "seed": n, "steps": 20, **({"fail": "out of memory"} if n % 9 == 4 else {})}
            for n in range(count)
        ]
        jobs.write_text("".join(json.dumps({"service": "simulation", "payload": p}) + "\n" for p in payloads))
        self.emp("submit", "-f", str(jobs))

    def pid(self, program: str) -> int:
        straight = build_opener(ProxyHandler({}))
        with straight.open(f"{self.api}/api/monitor/state", timeout=10) as answer:
            return int(json.load(answer)["data"]["machines"][0]["programs"][program]["pid"])


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on, below those that connections go out from."""
    for first in range(21_000, 32_000, 100):
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise SystemExit("no free ports")


def _taken(port: int) -> socket.socket:
    """Listen on `port` as soon as it is free."""
    while True:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))


def _open(browser: Browser, url: str, *, dark: bool, height: int) -> Page:
    page = browser.new_page(
        viewport={"width": 1440, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=1.5,
    )
    page.goto(url)
    page.locator("#connection", has_text="live").wait_for(timeout=WAIT_MS)
    return page


def _take(page: Page, to: Path) -> None:
    # Animations that are under way end before the picture.
    page.evaluate(SETTLED)
    page.screenshot(path=to)
    page.close()
    sys.stderr.write(f"{to.name}\n")


def _pictures(fleet: Fleet, browser: Browser, to: Path) -> None:
    machine = f"{fleet.page}/#/machines/basic-machine-local"
    # What happens while a page is open is in its charts.
    timeline = _open(browser, f"{fleet.page}/#/timeline", dark=True, height=900)
    fleet.submit(24)
    page = _open(browser, fleet.page, dark=False, height=900)
    page.locator(".active-jobs li").first.wait_for(timeout=WAIT_MS)
    page.locator("#verdict", has_text="In sync").wait_for(timeout=WAIT_MS)
    _take(page, to / "page.png")

    drift = _open(browser, fleet.page, dark=False, height=900)
    dark = _open(browser, machine, dark=True, height=1_000)
    # A killed worker is back at once. A service whose port another process has taken meanwhile cannot come back.
    os.kill(fleet.pid("redis-worker-gpu1"), signal.SIGKILL)
    os.kill(fleet.pid("comfyui-gpu2"), signal.SIGKILL)
    with _taken(fleet.comfyui + 2):
        for page in (drift, dark):
            page.locator("tr[data-key*=comfyui-gpu2]", has_text="taken").wait_for(timeout=WAIT_MS)
        _take(drift, to / "page-drift.png")
        _take(dark, to / "page-machine-dark.png")
    page = _open(browser, fleet.page, dark=False, height=900)
    page.locator("#verdict", has_text="In sync").wait_for(timeout=WAIT_MS)
    time.sleep(3)  # a few more points for the charts
    _take(timeline, to / "page-timeline-dark.png")


def main() -> int:
    to = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "images")
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emp-pictures-") as folder, sync_playwright() as p:
        fleet = Fleet(Path(folder))
        try:
            fleet.emp("apply", "-y", "--timeout", "120")
            browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=ARGS)
            _pictures(fleet, browser, to)
            browser.close()
        except (Error, subprocess.CalledProcessError) as e:
            sys.stderr.write(f"no pictures: {str(e).splitlines()[0]}\n")
            return 1
        finally:
            fleet.emp("down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
