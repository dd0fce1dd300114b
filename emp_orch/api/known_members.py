"""Whether a member's token is still a member's: asked of Redis now and then, not at each of its requests."""

from __future__ import annotations

import time

from emp_orch.fleet.model.fleet import Member
from emp_orch.runtimes.keys.join_tokens import OfMember
from emp_orch.store.fleet.pools.members import Members

# As long the token of a member that was forgotten, or is another box now, may still be good.
GOOD_S = 2.0
MAX_KNOWN = 10_000


class KnownMembers:
    """What one process heard last of each; of those that it heard of longest ago it forgets, beyond MAX_KNOWN."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._heard: dict[str, tuple[Member, float]] = {}

    async def is_one(self, shown: OfMember) -> bool:
        """Raises what redis-py raises when Redis is away."""
        now_s = time.monotonic()
        known, at_s = self._heard.get(shown.member_id, (None, now_s))
        if shown.is_of(known) and now_s - at_s < GOOD_S:
            return True
        member = await self._members.get(shown.member_id)
        self._heard.pop(shown.member_id, None)
        if member is None:
            return False
        self._heard[member.id] = (member, now_s)
        if len(self._heard) > MAX_KNOWN:
            del self._heard[next(iter(self._heard))]
        return shown.is_of(member)
