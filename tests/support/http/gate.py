"""A real API with its gate, boxes of strangers with their relays, and what they ask of Redis through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, Pool, PoolName, PoolScale
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.machine.agent.relay import Relay
from emp_orch.machine.home.redis_socket import url_of
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.acl.machine_scripts import load, own_texts
from emp_orch.store.artifacts.api_access import ApiAccess
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from support.http.run_files import API_TOKEN
from support.http.stack import FLEET, Producer, Stack, fleet_of

POOL = PoolName("renders")
BORN_MS = 1_000
# A member each, and a machine that emp.yaml names, of the host's own.
MINE, OTHER, NAMED = "renders-mine", "renders-other", "m1"


def pool_of(fleet: Fleet, **more: Any) -> Pool:
    template = structs.replace(
        fleet.machines[0], id=MachineId(POOL), pool=POOL, runtime=RuntimeKind.EXTERNAL, health_port=0, **more
    )
    return Pool(
        name=POOL,
        provider="join",
        min_size=0,
        max_size=1_000,
        template=template,
        scale=PoolScale(jobs_per_gpu=1, up_after_s=15, down_after_s=300),
        forget_after_s=600,
        cost=1,
        options={},
        origin="emp.yaml:40:3",
    )


class GateLab:
    """Of one API."""

    def __init__(self, stack: Stack, folder: Path, open_: AsyncExitStack) -> None:
        self.stack = stack
        self.r = stack.client()
        self.keys = Keys(stack.settings.prefix)
        self.queue = Queue(self.r, self.keys)
        self.producer = Producer(self.r, self.keys)
        self.producer.seal = SigningKey(stack.layout, FLEET).control()
        self.members = Members(self.r, self.keys, FLEET, lambda: self.producer.seal)
        self._folder = folder
        self._open = open_

    async def up(self, **more: Any) -> None:
        """A fleet of one machine of this host and one pool, in force, with two members."""
        fleet = fleet_of(NAMED)
        await self.producer.apply(structs.replace(fleet, pools={POOL: pool_of(fleet, **more)}))
        await load(self.r, own_texts(self.keys))
        for one in (MINE, OTHER):
            await self.join(one)

    async def join(self, member_id: str, born_ms: int = BORN_MS) -> Member:
        made = Member(id=MachineId(member_id), pool=POOL, state=MemberState.IN, born_ms=born_ms, joined_ms=born_ms)
        assert await self.members.add(made, most=1_000)
        return made

    def token(self, member_id: str, born_ms: int = BORN_MS) -> str:
        return JoinTokens(self.stack.layout).member_token(FLEET, POOL, member_id, born_ms=born_ms)

    async def relay(self, member_id: str, token: str = "", *, api: str = "") -> str:
        """The URL of Redis on the box of this member, which reaches the API at `api`."""
        root = self._folder / member_id
        root.mkdir()
        access = ApiAccess(url=api or self.stack.api, token=token or self.token(member_id))
        (root / "api.json").write_bytes(msgspec.json.encode(access))
        await self._open.enter_async_context(Relay(root, GATE_PATH))
        return url_of(root)

    def client_of(self, url: str, **more: Any) -> Client:
        made = client(url, **more)
        self._open.push_async_callback(made.aclose)
        return made

    async def box(self, member_id: str) -> Client:
        return self.client_of(await self.relay(member_id))


@asynccontextmanager
async def gate_lab(new_stack: Callable[..., Stack], folder: Path, **more: Any) -> AsyncIterator[GateLab]:
    """A lab whose Redis and API run; `more` is the template's."""
    stack = new_stack(token=API_TOKEN)
    stack.start_redis()
    async with AsyncExitStack() as open_:
        lab = GateLab(stack, folder, open_)
        open_.push_async_callback(lab.r.aclose)
        await lab.up(**more)
        stack.start("api")
        await stack.answers(f"{stack.api}/health")
        yield lab
