"""Carries out one operation of a plan. It decides nothing: what to do, and whether now, was decided before."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

import msgspec

from emp_orch.control.leader.forget_member import forget_member
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.runtimes import RuntimeKind, traits_of
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.layout import Layout
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.base import Runtime
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.seals import Stamp
from emp_orch.store.acl.users import withdraw
from emp_orch.store.fleet import commands, configs
from emp_orch.store.fleet.commands import CommandVerb
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports import reports

log = logging.getLogger("reconcile")


# Whether a member was removed: then nothing of it is to be left.
OnMembers = Callable[[Operation, Desired, Mandate], Awaitable[bool]]


async def _nobody(operation: Operation, desired: Desired, mandate: Mandate) -> bool:
    raise EmpError(f"{operation.text}: nobody here can do that")


class Executor:
    """Acts for one leader. `runtimes` by kind; a kind that is not there cannot be acted on.

    Every step is taken under the mandate that the operation began with: Redis checks it for what is written there,
    `assure` (Leadership) for the rest. A step may take as long as a drain, and the next one may be another leader's.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        layout: Layout,
        runtimes: Mapping[RuntimeKind, Runtime],
        assure: Callable[[Mandate], None],
        members: OnMembers | None = None,
    ) -> None:
        """`members` carries out what is about the members of pools."""
        self._r = r
        self._keys = keys
        self._layout = layout
        self._runtimes = runtimes
        self._assure = assure
        self._members = members or _nobody
        # Of what is said under one mandate; a machine is told one after the other, as it is counted.
        self._counts = itertools.count(1)
        self._turns: dict[MachineId, asyncio.Lock] = {}
        self._signing: SigningKey | None = None

    async def run(self, operation: Operation, desired: Desired, mandate: Mandate) -> bool:
        """Carry out `operation`. True when it is done, False when the machine will say so (`command_done`).

        Raises EmpError when it cannot be done (NotLeader: it is not ours to do any more), or what redis-py raises when
        Redis is away.
        """
        machine = desired.machines.get(operation.machine_id)
        match operation.verb:
            case Verb.START_MACHINE | Verb.RESTART_MACHINE:
                again = operation.verb is Verb.RESTART_MACHINE
                await self._start(_known(machine, operation), desired, mandate, again=again)
            case Verb.REMOVE_MACHINE:
                await self._remove(operation, mandate)
            case Verb.SEND_CONFIG:
                await self.renew_command_key(_known(machine, operation), desired, mandate)
                await self._send(operation, CommandVerb.APPLY_CONFIG, mandate)
                return False
            case Verb.START_PROGRAM:
                await self._put_secrets(machine, mandate)
                await self._send(operation, CommandVerb.START_PROGRAM, mandate)
                return False
            case Verb.RESTART_PROGRAM:
                await self._put_secrets(machine, mandate)
                await self._send(operation, CommandVerb.RESTART_PROGRAM, mandate)
                return False
            case Verb.STOP_PROGRAM:
                await self._send(operation, CommandVerb.STOP_PROGRAM, mandate)
                return False
            case Verb.START_PART:
                self._assure(mandate)
                await Supervisor(self._layout.control).start(str(operation.program))
            case Verb.FORGET_WORKER:
                self._assure(mandate)
                await reports.forget_worker(self._r, self._keys, str(operation.worker_id), seen_ms=operation.seen_ms)
            case Verb.CREATE_MEMBER | Verb.DRAIN_MEMBER | Verb.REMOVE_MEMBER:
                if await self._members(operation, desired, mandate):
                    await withdraw(self._r, self._keys, mandate.fleet, operation.machine_id)
                    await self._forget(operation.machine_id, mandate)
            case Verb.FORGET_MEMBER:
                members = Members(self._r, self._keys, mandate.fleet, self._key_of(mandate.fleet).control)
                self._assure(mandate)
                await forget_member(self._r, self._keys, members, operation, desired, mandate)
                self._turns.pop(operation.machine_id, None)
            case _:
                assert_never(operation.verb)
        return True

    async def _start(self, machine: DesiredMachine, desired: Desired, mandate: Mandate, *, again: bool) -> None:
        runtime = self._runtime(machine)
        stamp = await self._write_config(machine, desired, mandate)
        await runtime.prepare(machine)
        if again:
            await self._stop_everywhere(machine, mandate)
        secrets = self._secrets()
        self._assure(mandate)
        await runtime.start(
            machine, secrets, generation=desired.generation, command_key=self._command_key(machine, stamp, mandate)
        )

    async def _stop_everywhere(self, machine: DesiredMachine, mandate: Mandate) -> None:
        """Stop a machine, and leave nothing of it in a runtime that is no longer its own."""
        for kind, runtime in self._runtimes.items():
            if kind is machine.runtime or machine.id in await runtime.instances():
                self._assure(mandate)
                await runtime.stop(machine.id)
                if kind is not machine.runtime:
                    self._assure(mandate)
                    await runtime.remove(machine.id)

    async def _remove(self, operation: Operation, mandate: Mandate) -> None:
        """Stop a machine that is no longer named, wherever it runs, and forget what it reported."""
        machine_id = operation.machine_id
        for runtime in self._runtimes.values():
            if machine_id in await runtime.instances():
                self._assure(mandate)
                await runtime.stop(machine_id)
                self._assure(mandate)
                await runtime.remove(machine_id)
                break
        else:
            await self._shut_out(machine_id, mandate)
        await self._forget(machine_id, mandate)

    async def _shut_out(self, machine_id: MachineId, mandate: Mandate) -> None:
        """No runtime here knows it: it may have joined by itself, and must not come back with what it was given."""
        self._assure(mandate)
        for kind, runtime in self._runtimes.items():
            if traits_of(kind).joins:
                await runtime.remove(machine_id)
        await withdraw(self._r, self._keys, mandate.fleet, machine_id)

    async def _forget(self, machine_id: MachineId, mandate: Mandate) -> None:
        """Remove what was written for a machine, and the reports of it and its workers."""
        seen = await reports.read_reports(self._r, self._keys)
        await configs.remove_machine_keys(self._r, self._keys, mandate, machine_id)
        for worker_id, worker in seen.workers.items():
            if worker.report.machine_id == machine_id:
                self._assure(mandate)
                await reports.forget_worker(self._r, self._keys, worker_id, seen_ms=None)
        self._assure(mandate)
        await reports.forget_machine(self._r, self._keys, machine_id, seen_ms=None)

    async def renew_command_key(self, machine: DesiredMachine, desired: Desired, mandate: Mandate) -> None:
        """Give `machine` the key that its commands are sealed by, and write what it is to run. Raises as `run`."""
        since = Stamp(epoch=mandate.epoch)
        await self._put_secrets(machine, mandate, command_key=self._command_key(machine, since, mandate))
        await self._write_config(machine, desired, mandate)

    def _command_key(self, machine: DesiredMachine, since: Stamp, mandate: Mandate) -> bytes:
        """The machine's key, as its runtime is to hand it over."""
        return msgspec.json.encode(self._key_of(mandate.fleet).handed(machine.id, since=since))

    async def _write_config(self, machine: DesiredMachine, desired: Desired, mandate: Mandate) -> Stamp:
        seal = self._key_of(mandate.fleet).machine(machine.id)
        async with self._turns.setdefault(machine.id, asyncio.Lock()):
            stamp = Stamp(epoch=mandate.epoch, count=next(self._counts))
            config = MachineConfig(
                generation=desired.generation,
                digest=config_hash(machine),
                supervisord=render_machine(read_text("templates/supervisord.conf.j2"), machine),
                machine=machine,
                package=desired.package,
                stamp=stamp,
            )
            await configs.write_config(self._r, self._keys, mandate, config, seal)
        return stamp

    async def _send(self, operation: Operation, verb: CommandVerb, mandate: Mandate) -> None:
        to, key, program, why = operation.machine_id, operation.key, operation.program, operation.cause
        seal = self._key_of(mandate.fleet).machine(to)
        async with self._turns.setdefault(to, asyncio.Lock()):
            said = commands.Command(verb=verb, seq=key, program=program, cause=why)
            await commands.send(self._r, self._keys, mandate, to, said, seal=seal, count=next(self._counts))

    def _key_of(self, fleet: str) -> SigningKey:
        if self._signing is None:
            self._signing = SigningKey(self._layout, fleet)
        return self._signing

    def _runtime(self, machine: DesiredMachine) -> Runtime:
        runtime = self._runtimes.get(machine.runtime)
        if runtime is None:
            raise EmpError(f"{machine.id}: this emp cannot start machines of runtime {machine.runtime} yet")
        return runtime

    async def _put_secrets(self, machine: DesiredMachine | None, mandate: Mandate, *, command_key: bytes = b"") -> None:
        """What a running machine's programs need may have come with this generation."""
        if machine is not None:
            self._assure(mandate)
            await self._runtime(machine).put_secrets(machine, self._secrets(), command_key=command_key)

    def _secrets(self) -> dict[str, str]:
        """Values of secret references, as the last apply resolved them."""
        try:
            return msgspec.json.decode(self._layout.secrets.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as e:
            raise EmpError(f"{self._layout.secrets} cannot be read: {e}", hint="run `emp apply` again") from e


def _known(machine: DesiredMachine | None, operation: Operation) -> DesiredMachine:
    if machine is None:
        raise EmpError(f"{operation.machine_id} is not in this generation")
    return machine
