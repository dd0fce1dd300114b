"""`emp doctor --repair`: what stands under emp's keys in Redis and is not emp's is put aside."""

from __future__ import annotations

from emp_orch import settings as settings_files
from emp_orch.control.host import generation as generations
from emp_orch.layout import Layout
from emp_orch.store import contract
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys


async def repair(layout: Layout) -> list[str]:
    """What was done, in words. Raises EmpError where nothing was applied here, or Redis is out of reach."""
    settings = settings_files.load(layout)
    keys, kept = Keys(settings.prefix), generations.kept(layout)
    machines = [m.id for m in kept.fleet.machines] if kept else []
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        damaged = await contract.look(r, keys, settings.fleet, machines)
        return await contract.quarantine(r, keys, settings.fleet, damaged)
