"""Real joins of a pool over HTTP, spread over some seconds, as boxes do them; guesses beside them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter

import aiohttp
from msgspec import Struct

ASK_S = 30.0
# A guess is tried again at once, from so many places.
STRANGERS = 4


class Rush(Struct, frozen=True, kw_only=True):
    """What came of it. Times are seconds; `statuses` of the first words of all boxes, `guesses` of the strangers."""

    boxes: int
    members: int
    took_s: float
    waits_s: tuple[float, ...]
    statuses: dict[int, int]
    guesses: dict[int, int]

    def wait_s(self, share: float) -> float:
        """What `share` of the boxes did not wait longer than."""
        return sorted(self.waits_s)[min(len(self.waits_s) - 1, int(share * len(self.waits_s)))]


async def rush(api: str, pool: str, token: str, *, boxes: int, within_s: float, guess: bool = True) -> Rush:
    """Let `boxes` join `pool` of the API, evenly over `within_s`; raises AssertionError where one is not let in."""
    path, statuses, guesses = f"{api}/api/pools/{pool}/join", Counter[int](), Counter[int]()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(given: str, counted: Counter[int]) -> tuple[int, str]:
            body = {"box": secrets.token_hex(16), "host": "bench"}
            headers = {"Authorization": f"Bearer {given}"}
            async with session.post(path, json=body, headers=headers) as answer:
                counted[answer.status] += 1
                said = await answer.json()
                return answer.status, said["data"]["machine_id"] if answer.status == 200 else str(said["error"])

        async def strange() -> None:
            while True:
                await ask(f"emp1.{secrets.token_urlsafe(60)}", guesses)

        async def box(number: int) -> tuple[str, float]:
            await asyncio.sleep(number * within_s / boxes)
            began = time.monotonic()
            status, said = await ask(token, statuses)
            assert status == 200, f"box {number}: {status} {said}"
            return said, time.monotonic() - began

        strangers = [asyncio.create_task(strange()) for _ in range(STRANGERS if guess else 0)]
        began = time.monotonic()
        try:
            found = await asyncio.gather(*(box(n) for n in range(boxes)))
        finally:
            for stranger in strangers:
                stranger.cancel()
            await asyncio.gather(*strangers, return_exceptions=True)
    return Rush(
        boxes=boxes,
        members=len({member for member, _ in found}),
        took_s=time.monotonic() - began,
        waits_s=tuple(wait for _, wait in found),
        statuses=dict(statuses),
        guesses=dict(guesses),
    )
