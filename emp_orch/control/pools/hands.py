"""Carries out what is decided about members: asks an engine for boxes, lets members go, gives their boxes back."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from emp_orch.control.pools.engine import words_of
from emp_orch.control.pools.keeper import PoolKeeper
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool
from emp_orch.fleet.model.member_ids import id_of_chance
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.layout import Layout
from emp_orch.render.box import stop_grace_s
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.providers.base import Launch, Provider
from emp_orch.settings import Settings
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.fleet.pools.members import Full, Members
from emp_orch.store.redis.client import TRANSIENT, Client, time_ms

log = logging.getLogger("reconcile")

# What an engine may take to accept a word; a provider ends by itself before.
ACCEPTED_S = 90.0
ID_BYTES = 8

Write = Callable[[list[Entry]], Awaitable[None]]


class Hands:
    """Of one leader. Each call takes an operation of the plan, and raises EmpError when it cannot be done."""

    def __init__(
        self,
        r: Client,
        layout: Layout,
        settings: Settings,
        members: Members,
        keeper: PoolKeeper,
        assure: Callable[[Mandate], None],
        write: Write,
    ) -> None:
        self._r = r
        self._settings = settings
        self._tokens = JoinTokens(layout)
        self._members = members
        self._keeper = keeper
        self._assure = assure
        self._write = write

    async def run(self, operation: Operation, desired: Desired, mandate: Mandate) -> bool:
        """Whether a member was removed, so that nothing of it is to be left."""
        pool = desired.pools.get(operation.pool)
        if pool is None:
            raise EmpError(f"pool {operation.pool} is not in this generation")
        match operation.verb:
            case Verb.CREATE_MEMBER:
                await self._create(operation, pool, mandate)
            case Verb.DRAIN_MEMBER:
                await self._drain(operation, desired)
            case _:
                return await self._remove(operation, pool, desired, mandate)
        return False

    async def _create(self, operation: Operation, pool: Pool, mandate: Mandate) -> None:
        if not self._settings.api_machine_url:
            raise EmpError(
                f"boxes of pool {pool.name} would not find the API", hint="say where it is: api.machine_url in emp.yaml"
            )
        engine = self._keeper.engine(pool.name)
        provider = engine.provider()
        asked = (self._ask(pool, provider, operation, mandate) for _ in range(operation.count))
        said = await asyncio.gather(*asked, return_exceptions=True)
        engine.look_again()
        failed = [e for e in said if isinstance(e, BaseException)]
        for e in failed:
            if not isinstance(e, EmpError):
                raise e
        if failed:
            words = "; ".join(dict.fromkeys(words_of(e) for e in failed))
            raise failed[0] if isinstance(failed[0], NotLeader) else EmpError(words)

    async def _ask(self, pool: Pool, provider: Provider, operation: Operation, mandate: Mandate) -> None:
        """One box. The member is written down first: what an engine may have started is never nobody's."""
        now_ms = await time_ms(self._r)
        member = Member(
            id=id_of_chance(pool.name, secrets.token_bytes(ID_BYTES)),
            pool=pool.name,
            state=MemberState.EXPECTED,
            born_ms=now_ms,
            why=operation.cause,
        )
        self._assure(mandate)
        try:
            if not await self._members.add(member, most=pool.max_size):
                raise EmpError(f"{member.id} is a member already")
        except Full as e:
            raise EmpError(f"pool {pool.name} has {pool.max_size} members already, as many as it may have") from e
        launch = self._launch(pool, member, mandate.fleet)
        self._assure(mandate)
        try:
            async with asyncio.timeout(ACCEPTED_S):
                await provider.create(launch)
        except Exception as e:  # noqa: BLE001  # another's code
            words = words_of(e).replace(launch.token, "…")
            if not await self._joined_or_taken_back(provider, member, pool):
                raise EmpError(words) from None
            log.info("%s joined, though its engine says: %s", member.id, words)
        await self._tell("member_asked", member, operation.cause)

    async def _joined_or_taken_back(self, provider: Provider, member: Member, pool: Pool) -> bool:
        """Nobody waits for one that was refused. What the engine started all the same is given back with the member,
        unless it joined meanwhile: whether it did. From then on that it leaves it takes no job.
        """
        leaving = await self._members.change(member, leaving_ms=await time_ms(self._r))
        if leaving is None:
            now = await self._members.get(member.id)
            return now is not None and now.state is MemberState.IN
        try:
            async with asyncio.timeout(ACCEPTED_S):
                await provider.remove(member.id, stop_s=pool.template.worker.drain_timeout_s)
        except Exception as e:  # noqa: BLE001  # it stays a member until the engine answers
            log.warning("the box of %s may be there: %s", member.id, words_of(e))
            await self._members.change(leaving, leaving_ms=0)
            return False
        await self._members.remove(leaving)
        return False

    def _launch(self, pool: Pool, member: Member, fleet: str) -> Launch:
        machine = pool.template
        return Launch(
            fleet=fleet,
            pool=pool.name,
            member_id=member.id,
            api=self._settings.api_machine_url,
            # An engine may start the box again at any time, and then it is the same member.
            token=self._tokens.pool_token(fleet, pool.name, expires_s=None, member_id=member.id),
            image=machine.image or "",
            num_gpus=machine.num_gpus,
            gpus=machine.gpus.kind,
            volumes=machine.volumes,
            limits=machine.limits,
            stop_s=self._keeper.stop_s(pool),
            environment={},
        )

    async def _drain(self, operation: Operation, desired: Desired) -> None:
        member = desired.members.get(operation.machine_id)
        if member is None:
            raise EmpError(f"{operation.machine_id} is no member any more")
        now_ms = await time_ms(self._r)
        if await self._members.change(member, leaving_ms=now_ms, why=operation.cause) is None:
            raise EmpError(f"{member.id} has changed meanwhile")

    async def _remove(self, operation: Operation, pool: Pool, desired: Desired, mandate: Mandate) -> bool:
        member = desired.members.get(operation.machine_id)
        if await self._members.get(operation.machine_id) != member:
            raise EmpError(f"{operation.machine_id} has changed meanwhile")
        self._assure(mandate)
        stop_s = _stop_s(operation.machine_id, pool, desired)
        for engine in self._keeper.holders(pool.name, operation.machine_id):
            try:
                async with asyncio.timeout(ACCEPTED_S):
                    await engine.provider().remove(operation.machine_id, stop_s=stop_s)
            except Exception as e:  # another's code
                raise EmpError(words_of(e)) from e
            finally:
                engine.look_again()
        if member is None:
            return False
        self._keeper.given_back(member.id, stop_s)
        self._assure(mandate)
        if not await self._members.remove(member):
            raise EmpError(f"{member.id} has changed meanwhile")
        await self._tell("member_removed", member, operation.cause)
        return True

    async def _tell(self, type_: str, member: Member, why: str) -> None:
        try:
            await self._write([(type_, {"machine_id": member.id, "pool": member.pool, "reason": why})])
        except (NotLeader, *TRANSIENT) as e:  # the journal is not worth a box
            log.warning("%s %s is not in the journal: %s", type_, member.id, e)


def _stop_s(machine_id: MachineId, pool: Pool, desired: Desired) -> float:
    """How long its box may take to end in good order; one that is no member any more has nothing left to do."""
    machine = desired.machines.get(machine_id)
    return pool.template.worker.drain_timeout_s if machine is None else stop_grace_s(machine)
