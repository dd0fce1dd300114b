"""Boxes that joined an older emp: what they may do at Redis is what their scripts need now."""

from __future__ import annotations

import asyncio
import logging

from emp_orch.api.context import Context
from emp_orch.api.joining.answers import machines_send
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.users import renew
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.redis.client import TRANSIENT, within

log = logging.getLogger(__name__)

AWAY_S = 2.0


async def renew_rights(ctx: Context) -> None:
    """Give the boxes that joined an older emp the rights that they need now; return when that is done."""
    seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
    while True:
        try:
            async with within():
                generation = await read_with_members(ctx.redis, ctx.keys, ctx.settings.fleet, seal)
                sends = generation is not None and await machines_send(ctx, generation)
            for name, password in _passwords(ctx, generation).items():
                async with within():
                    await renew(ctx.redis, ctx.keys, ctx.settings.fleet, name, password, sends=sends)
            return
        except (*TRANSIENT, TimeoutError) as e:
            log.warning("cannot look after the rights of boxes that joined: %s", e or type(e).__name__)
        except EmpError as e:  # a damaged generation: nobody can join either
            log.warning("cannot look after the rights of boxes that joined: %s", e.message)
            return
        await asyncio.sleep(AWAY_S)


def _passwords(ctx: Context, generation: Generation | None) -> dict[MachineId, str]:
    """Of those that joined by themselves, members too."""
    if generation is None:
        return {}
    tokens, fleet = JoinTokens(ctx.layout), ctx.settings.fleet
    named = [m.id for m in generation.fleet.machines if m.traits.joins and not m.pool]
    members = {m.id: tokens.member_password(fleet, m.id, m.born_ms) for m in generation.fleet.members if m.joined_ms}
    return {one: tokens.password(fleet, one) for one in named} | members
