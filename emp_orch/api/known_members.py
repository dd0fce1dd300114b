"""Whether a member's token is still a member's: asked of Redis now and then, not at each of its requests."""

from __future__ import annotations

import time

from emp_orch.runtimes.keys.join_tokens import OfMember
from emp_orch.store.fleet.pools.members import Members

# As long a forgotten member's token may still be good.
GOOD_S = 2.0
MAX_KNOWN = 10_000


class KnownMembers:
    """What one process heard last of each; of those that it heard of longest ago it forgets, beyond MAX_KNOWN."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._born: dict[str, tuple[int, float]] = {}

    async def is_one(self, shown: OfMember) -> bool:
        """Raises what redis-py raises when Redis is away."""
        now_s = time.monotonic()
        born_ms, at_s = self._born.get(shown.member_id, (0, -GOOD_S))
        if born_ms == shown.born_ms and now_s - at_s < GOOD_S:
            return True
        member = await self._members.get(shown.member_id)
        self._born.pop(shown.member_id, None)
        if member is None or member.pool != shown.pool:
            return False
        self._born[shown.member_id] = (member.born_ms, now_s)
        if len(self._born) > MAX_KNOWN:
            del self._born[next(iter(self._born))]
        return member.born_ms == shown.born_ms
