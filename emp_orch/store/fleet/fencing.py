"""What only the leader writes: in one script, Redis compares who writes with who leads, and refuses anybody else.

A leader that was stopped (SIGSTOP, a suspended host) and goes on does not know that another took over; Redis does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


async def write(
    r: Client, keys: Keys, mandate: Mandate, text: str, *, to: Sequence[str], args: Sequence[str | bytes | int]
) -> None:
    """Run the script `text`, which begins with fence.lua, on the keys `to` if `mandate` stands in Redis; else raise
    NotLeader. Its own are KEYS[3] and ARGV[3] on."""
    fleet = mandate.fleet
    script = r.register_script(text)
    lease = [keys.leader(fleet), keys.epoch(fleet)]
    answer: Any = await script(keys=[*lease, *to], args=[mandate.holder, mandate.epoch, *args])
    if int(answer[0]) == 0:
        raise NotLeader(fleet, str(answer[1]))
