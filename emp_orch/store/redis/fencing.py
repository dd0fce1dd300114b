"""What only the leader writes: in one script, Redis compares who writes with who leads, and refuses anybody else.

A leader that was stopped (SIGSTOP, a suspended host) and goes on does not know that another took over; Redis does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

# Goes before each body. KEYS[1] lease, KEYS[2] epoch. ARGV[1] who, ARGV[2] its epoch.
# Returns {0, holder} when ARGV[1] does not hold the lease, or holds it with another epoch. A body finds its own keys
# from KEYS[3] and arguments from ARGV[3] on.
_CHECK = """
local holder = redis.call('GET', KEYS[1]) or ''
if holder ~= ARGV[1] then return {0, holder} end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {0, ''} end
"""
_DONE = "\nreturn {1, ''}\n"


@lru_cache(maxsize=16)
def _script(body: str) -> str:
    return _CHECK + body + _DONE


async def write(
    r: Client, keys: Keys, mandate: Mandate, body: str, *, to: Sequence[str], args: Sequence[str | bytes | int]
) -> None:
    """Run `body` (Lua without a `return`) on the keys `to` if `mandate` stands in Redis, else raise NotLeader."""
    fleet = mandate.fleet
    script = r.register_script(_script(body))
    lease = [keys.leader(fleet), keys.epoch(fleet)]
    answer: Any = await script(keys=[*lease, *to], args=[mandate.holder, mandate.epoch, *args])
    if int(answer[0]) == 0:
        raise NotLeader(fleet, str(answer[1]))
