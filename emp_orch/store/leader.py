"""The leader's lease and its epoch: one reconciler acts at a time, and each new leader has a higher epoch."""

from __future__ import annotations

from emp_orch.store.connect import Client
from emp_orch.store.keys import Keys

# An epoch is at least the time (ms), so it rises also in a Redis that was emptied and forgot the last one:
# agents keep the highest they have seen, and refuse what is below.
# KEYS[1] lease, KEYS[2] epoch. ARGV[1] who, ARGV[2] ttl in ms.
# Returns the epoch when ARGV[1] holds the lease now, or '' and the holder.
_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {redis.call('GET', KEYS[2]), holder}
end
if holder then return {'', holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local t = redis.call('TIME')
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('SET', KEYS[2], string.format('%.0f', epoch))
return {string.format('%.0f', epoch), ARGV[1]}
"""

# KEYS[1] lease. ARGV[1] who. Gives the lease back if it is held by ARGV[1].
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Leadership:
    """One candidate. `who` is unique to this process."""

    def __init__(self, r: Client, keys: Keys, fleet: str, who: str, *, ttl_ms: int) -> None:
        self._keys = [keys.leader(fleet), keys.epoch(fleet)]
        self.who = who
        self._ttl_ms = ttl_ms
        self._acquire = r.register_script(_ACQUIRE)
        self._release = r.register_script(_RELEASE)

    async def acquire(self) -> tuple[int | None, str]:
        """Take or renew the lease. Returns (epoch, who) when it is ours, else (None, holder)."""
        epoch, holder = await self._acquire(keys=self._keys, args=[self.who, self._ttl_ms])
        return (int(epoch) if epoch else None), str(holder)

    async def release(self) -> None:
        """Give the lease back if it is ours."""
        await self.take_from(self.who)

    async def take_from(self, holder: str) -> None:
        """End the lease of `holder`, who is known to be dead, if it still has it."""
        await self._release(keys=self._keys[:1], args=[holder])
