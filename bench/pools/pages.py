"""The monitor page of the fleet, looked at in a Chromium while its members work."""

from __future__ import annotations

from msgspec import Struct

from bench.page.page import Looker, chromium

# Of each view, what somebody who opens it wants to see.
USEFUL = {"overview": "[data-pool]", "pools/renders": "#why", "machines": ".card[data-machine]", "jobs": "#submit"}
SETTLE_MS = 1_500


class Seen(Struct, frozen=True, kw_only=True):
    """`painted_ms` from the navigation to what is useful, then how busy the main thread was, and its longest task."""

    view: str
    painted_ms: float
    busy_percent: float
    longest_ms: float
    elements: int


def look(url: str, seconds: float) -> tuple[Seen, ...]:
    """Each view of the page at `url` for so many seconds. Raises playwright's Error."""
    found = []
    with chromium() as browser:
        for view, useful in USEFUL.items():
            looker = Looker(browser)
            painted_ms = looker.open(f"{url}/#/{view}", useful)
            looker.page.wait_for_timeout(SETTLE_MS)
            looker.watch()
            busy = looker.busy_for(seconds)
            seen = Seen(
                view=view,
                painted_ms=painted_ms,
                busy_percent=busy.percent,
                longest_ms=max(busy.long_ms, default=0.0),
                elements=looker.elements(),
            )
            found.append(seen)
            looker.close()
    return tuple(found)
