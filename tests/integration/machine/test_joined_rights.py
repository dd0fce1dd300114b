"""A box that joined an older emp has the rights that its scripts need once the API is a newer one."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.api.app import build_context
from emp_orch.api.joining.rights import renew_rights
from emp_orch.control.plane.packing import keep_own, own_package
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.redis_users import user_of
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.acl.users import grant
from support.http.stack import FLEET, Producer, Stack, fleet_of


@pytest.mark.parametrize("known", [True, False])
async def test_who_joined_gets_them_and_nobody_else_a_user(http_stack: Stack, producer: Producer, known: bool) -> None:
    """`known`: what the package in force sends to Redis. Else machines may send it themselves."""
    keep_own(http_stack.layout, producer.keys.prefix)
    fleet = fleet_of("box", "later", "here")
    external = [structs.replace(m, runtime=RuntimeKind.EXTERNAL) for m in fleet.machines[:2]]
    await producer.apply(
        structs.replace(fleet, machines=(*external, fleet.machines[2])), own_package() if known else None
    )
    r, box = producer.redis, user_of(FLEET, "box")
    password = JoinTokens(http_stack.layout).password(FLEET, "box")
    assert await grant(r, producer.keys, FLEET, "box", password, sends=not known)
    whole: Any = await r.acl_getuser(box)
    await r.execute_command("ACL", "SETUSER", box, "resetkeys", "~jobs")
    ctx = build_context(http_stack.settings, http_stack.layout, r)
    await renew_rights(ctx)
    await ctx.line.aclose()
    assert await r.acl_getuser(box) == whole
    assert ("+eval" in whole["commands"]) is not known
    assert sorted(await r.acl_users()) == ["default", box]
