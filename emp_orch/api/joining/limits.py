"""How often anybody may ask to join. Who guesses tokens is told to wait, and keeps no box out: a token that opens is
never counted as a guess.
"""

from __future__ import annotations

import math
import time

from aiohttp import web

from emp_orch.web.errors import Refused
from emp_orch.web.rate import Rate, Rates

# A fleet's boxes may all come at once, after a power cut.
BURST = 200
PER_S = 20.0
# Those of a pool are more, and were asked for in one go.
POOL_BURST = 1_000
POOL_PER_S = 50.0
GUESSES = 20
GUESSES_PER_S = 0.5
ADDRESSES = 10_000

_RATE = web.AppKey("join rate", Rate)
_POOL_RATE = web.AppKey("join rate of pools", Rate)
_FAILED = web.AppKey("joins that failed", Rates)


def limit(app: web.Application) -> None:
    """Give `app` what counts."""
    app[_RATE] = Rate(burst=BURST, per_s=PER_S)
    app[_POOL_RATE] = Rate(burst=POOL_BURST, per_s=POOL_PER_S)
    app[_FAILED] = Rates(burst=GUESSES, per_s=GUESSES_PER_S, most=ADDRESSES)


def guessed(request: web.Request) -> None:
    """This token opened nothing. Raises Refused (429) where there were too many of them from there."""
    _wait(request.app[_FAILED].take(request.remote or "", time.monotonic()), "too many tokens that open nothing")


def asked(request: web.Request, *, pool: bool = False) -> None:
    """This token opens. Raises Refused (429) where too many come at once."""
    rate = request.app[_POOL_RATE if pool else _RATE]
    _wait(rate.take(time.monotonic()), "too many ask to join at once")


def _wait(wait_s: float, why: str) -> None:
    if wait_s > 0:
        raise Refused(429, why, headers={"Retry-After": str(math.ceil(wait_s))})
