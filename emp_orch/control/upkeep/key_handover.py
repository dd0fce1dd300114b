"""Gives every machine the fleet's key anew, and what it is to run under that: after a rotation, and after the upgrade
of an emp that sealed nothing.

It runs beside the rounds, and hands on again what a host that was away did not take.
"""

from __future__ import annotations

import asyncio
import logging

from emp_orch.control.leader.execute import Executor
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import write_private
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.redis.client import TRANSIENT

log = logging.getLogger("reconcile")

AT_ONCE = 8
AGAIN_S = 30.0


class KeyHandover:
    """For the leader. `.emp/control/sealed` names the key that every machine was given."""

    def __init__(self, layout: Layout, fleet: str, executor: Executor, group: asyncio.TaskGroup) -> None:
        self._signing = SigningKey(layout, fleet)
        self._path = layout.control / "sealed"
        self._executor = executor
        self._group = group
        self._task: asyncio.Task[None] | None = None
        self._given = ""
        self._again_at_s = 0.0

    def tend(self, desired: Desired, mandate: Mandate) -> None:
        """Begin, unless every machine has the key that is in the folder now."""
        name = self._signing.control().name
        self._given = self._given or self._read()
        under_way = self._task is not None and not self._task.done()
        now_s = asyncio.get_running_loop().time()
        if name == self._given or under_way or now_s < self._again_at_s:
            return
        self._again_at_s = now_s + AGAIN_S
        self._task = self._group.create_task(self._all(name, desired, mandate), name="keys")

    async def _all(self, name: str, desired: Desired, mandate: Mandate) -> None:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(machine: DesiredMachine) -> str:
            async with turn:
                return await self._one(machine, desired, mandate)

        try:
            failed = list(filter(None, await asyncio.gather(*map(one, desired.machines.values()))))
        except NotLeader:
            return  # the leader does it
        if failed:
            log.warning("%d machines have no key of this fleet yet: %s", len(failed), failed[0])
            return
        log.info("%d machines have the fleet's key %s", len(desired.machines), name)
        self._given = name
        try:
            write_private(self._path, name.encode())
        except OSError as e:
            log.warning("cannot write %s: %s; the keys are handed on again at the next start", self._path, e.strerror)

    async def _one(self, machine: DesiredMachine, desired: Desired, mandate: Mandate) -> str:
        """Why it did not work; empty when it did."""
        try:
            await self._executor.renew_command_key(machine, desired, mandate)
        except NotLeader:
            raise
        except (EmpError, *TRANSIENT) as e:
            return f"{machine.id}: {e or type(e).__name__}"
        return ""

    def _read(self) -> str:
        try:
            return self._path.read_text(errors="replace")[:64]
        except OSError:
            return ""
