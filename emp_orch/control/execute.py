"""Carries out one operation of a plan. It decides nothing: what to do, and whether now, was decided before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import assert_never

import msgspec

from emp_orch.errors import EmpError
from emp_orch.fleet.desired import DesiredMachine, config_hash
from emp_orch.fleet.drift import Desired
from emp_orch.fleet.model import MachineId, RuntimeKind
from emp_orch.fleet.plan import Operation, Verb
from emp_orch.layout import Layout
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.base import Runtime
from emp_orch.store import commands, configs, reports
from emp_orch.store.commands import Command, CommandVerb
from emp_orch.store.configs import MachineConfig
from emp_orch.store.connect import Client
from emp_orch.store.keys import Keys

log = logging.getLogger("reconcile")


class Executor:
    """Acts for one leader. `runtimes` by kind; a kind that is not there cannot be acted on."""

    def __init__(self, r: Client, keys: Keys, layout: Layout, runtimes: Mapping[RuntimeKind, Runtime]) -> None:
        self._r = r
        self._keys = keys
        self._layout = layout
        self._runtimes = runtimes

    async def run(self, operation: Operation, desired: Desired, epoch: int) -> bool:
        """Carry out `operation`. True when it is done, False when the machine will say so (`command_done`).

        Raises EmpError when it cannot be done, or what redis-py raises when Redis is away.
        """
        machine = desired.machines.get(operation.machine_id)
        match operation.verb:
            case Verb.START_MACHINE | Verb.RESTART_MACHINE:
                await self._start(_known(machine, operation), desired, again=operation.verb is Verb.RESTART_MACHINE)
            case Verb.REMOVE_MACHINE:
                await self._remove(operation)
            case Verb.SEND_CONFIG:
                await self._write_config(_known(machine, operation), desired)
                await self._put_secrets(machine)
                await self._send(operation, CommandVerb.APPLY_CONFIG, epoch)
                return False
            case Verb.START_PROGRAM:
                await self._put_secrets(machine)
                await self._send(operation, CommandVerb.START_PROGRAM, epoch)
                return False
            case Verb.RESTART_PROGRAM:
                await self._put_secrets(machine)
                await self._send(operation, CommandVerb.RESTART_PROGRAM, epoch)
                return False
            case Verb.STOP_PROGRAM:
                await self._send(operation, CommandVerb.STOP_PROGRAM, epoch)
                return False
            case Verb.FORGET_WORKER:
                await reports.forget_worker(self._r, self._keys, str(operation.worker_id), seen_ms=operation.seen_ms)
            case _:
                assert_never(operation.verb)
        return True

    async def _start(self, machine: DesiredMachine, desired: Desired, *, again: bool) -> None:
        runtime = self._runtime(machine)
        await self._write_config(machine, desired)
        if again:
            await runtime.stop(machine.id)
        await runtime.start(machine, self._secrets())

    async def _remove(self, operation: Operation) -> None:
        """Stop a machine that is no longer named, wherever it runs, and forget what it reported."""
        machine_id = operation.machine_id
        for runtime in self._runtimes.values():
            if machine_id in await runtime.instances():
                await runtime.stop(machine_id)
                await runtime.remove(machine_id)
        await self.forget(machine_id)

    async def forget(self, machine_id: MachineId) -> None:
        """Remove the reports of a machine and its workers, and what was written for it."""
        seen = await reports.read_reports(self._r, self._keys)
        for worker_id, worker in seen.workers.items():
            if worker.report.machine_id == machine_id:
                await reports.forget_worker(self._r, self._keys, worker_id, seen_ms=None)
        await reports.forget_machine(self._r, self._keys, machine_id, seen_ms=None)
        await configs.remove_machine_keys(self._r, self._keys, machine_id)

    async def _write_config(self, machine: DesiredMachine, desired: Desired) -> None:
        config = MachineConfig(
            generation=desired.generation,
            digest=config_hash(machine),
            supervisord=render_machine(read_text("templates/supervisord.conf.j2"), machine),
            machine=machine,
        )
        await configs.write_config(self._r, self._keys, config)

    async def _send(self, operation: Operation, verb: CommandVerb, epoch: int) -> None:
        command = Command(epoch=epoch, seq=operation.key, verb=verb, program=operation.program)
        await commands.send(self._r, self._keys, operation.machine_id, command)

    def _runtime(self, machine: DesiredMachine) -> Runtime:
        runtime = self._runtimes.get(machine.runtime)
        if runtime is None:
            raise EmpError(f"{machine.id}: this emp cannot start machines of runtime {machine.runtime} yet")
        return runtime

    async def _put_secrets(self, machine: DesiredMachine | None) -> None:
        """What a running machine's programs need may have come with this generation."""
        if machine is not None:
            await self._runtime(machine).put_secrets(machine, self._secrets())

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
