"""Takes a picture of the monitor page: `python docs/screenshot.py URL OUT.png [--dark] [--width W] [--height H]`.

Uses playwright with the system's Chromium (CHROMIUM names another one).
"""

from __future__ import annotations

import argparse
import os
import sys

from playwright.sync_api import Error, sync_playwright

ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


# The breathing dots never end.
SETTLED = """Promise.allSettled(document.getAnimations()
    .filter((a) => a.effect.getTiming().iterations === 1).map((a) => a.finished))"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--full", action="store_true", help="the whole page, not only the window")
    asked = parser.parse_args()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=ARGS)
        page = browser.new_page(
            viewport={"width": asked.width, "height": asked.height},
            color_scheme="dark" if asked.dark else "light",
            device_scale_factor=2,
        )
        try:
            page.goto(asked.url)
            page.wait_for_selector("#connection:has-text('live')", timeout=15_000)
            page.wait_for_selector("#machines")
            # Animations that are under way end before the picture.
            page.evaluate(SETTLED)
            page.screenshot(path=asked.out, full_page=asked.full)
        except Error as e:
            sys.stderr.write(f"no picture of {asked.url}: {e.message.splitlines()[0]}\n")
            return 1
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
