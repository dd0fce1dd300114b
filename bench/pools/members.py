"""Light members: the real join, relay, agent's line to Redis, orders and worker, without supervisord and services.

Many are in one process. All come from one address, as boxes do behind one proxy.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import structs

from bench.pools.connector import KIND, RUNS
from bench.pools.fleets import POOL, SERVICE
from bench.pools.plan import Plan
from bench.reconcile.simulated import machine_report
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.machine.agent.commands import CommandFollower
from emp_orch.machine.agent.link import Link
from emp_orch.machine.agent.relay import Relay
from emp_orch.machine.boot.join import Invitation, Membership, Pooled, Renewal
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.trust import Trust, read_key
from emp_orch.store.acl.joining import JoinAnswer, Leaving
from emp_orch.store.fleet.commands import CommandVerb, StampedCommand
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from emp_orch.worker.config import ServiceBinding, WorkerConfig
from emp_orch.worker.daemon import run_worker

_HEARTBEAT_S = 2.0
_DRAIN_S = 30.0
_JOB_S = 600.0
_WHY = "the box was told to end (SIGTERM)"


class Member:
    """One box. `machine_id` is empty of one that joins a pool, until it is told."""

    def __init__(self, root: Path, plan: Plan, invitation: Invitation, machine_id: str = "") -> None:
        self._folder = MachineFolder(root)
        self._plan = plan
        pooled = None if machine_id else Pooled(pool=POOL)
        self._membership = Membership(self._folder, machine_id, invitation, pooled)
        self.id = machine_id
        self._began_s = 0.0
        self.joined_s = 0.0  # how long it took until it was let in
        self._stopping = asyncio.Event()
        self._open = AsyncExitStack()
        self._relay: Relay | None = None
        self._agent: list[asyncio.Task[None]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def worker(self) -> WorkerId:
        return worker_id(MachineId(self.id), 0)

    @property
    def holds(self) -> str:
        """The job in hand; empty: none."""
        return RUNS.held.get(self.worker, "")

    async def start(self) -> None:
        """Join, report, and take jobs. Raises EmpError where it is not let in."""
        self._folder.root.mkdir(parents=True, exist_ok=True)
        self._began_s = self._began_s or time.monotonic()
        answer, _ = await self._membership.join()
        self.joined_s = time.monotonic() - self._began_s
        self.id = answer.machine_id
        if answer.gate:
            self._relay = Relay(self._folder.root, answer.gate)
            await self._open.enter_async_context(self._relay)
        if answer.config.package is not None:
            os.environ["EMP_PACKAGE"] = answer.config.package.digest  # what all workers of this process say they run
        url, keys = self._membership.way(answer), Keys(answer.prefix)
        self._begin_agent(answer, url, keys)
        self._worker = asyncio.create_task(
            run_worker(self._config(), url, answer.prefix, self._stopping), name=f"worker {self.id}"
        )

    def _begin_agent(self, answer: JoinAnswer, url: str, keys: Keys) -> None:
        r: Client = client(url, name=f"emp:agent:{self.id}")
        self._open.push_async_callback(r.aclose)
        renewal = Renewal(self._membership, url=url)
        agent = _Agent(self._folder, answer.config, self._membership.box(), r, keys, renewal)
        self.link = agent.link
        self._agent = [
            asyncio.create_task(agent.link.run(), name=f"link {self.id}"),
            asyncio.create_task(agent.orders.run(), name=f"orders {self.id}"),
        ]

    def _config(self) -> WorkerConfig:
        return WorkerConfig(
            machine_id=MachineId(self.id),
            gpu=0,
            services=(ServiceBinding(service=SERVICE, connector=KIND, url=""),),
            capabilities={},
            drain_timeout_s=_DRAIN_S,
            job_timeout_s=_JOB_S,
            lease_s=self._plan.lease_s,
            heartbeat_s=_HEARTBEAT_S,
            probe_s=_HEARTBEAT_S,
            artifacts=(self._folder.root.parent / "artifacts").as_uri(),
        )

    async def leave(self) -> None:
        """In good order: the job in hand is finished, the reports are taken away, and the API has the last word."""
        self._stopping.set()
        if self._worker is not None:
            await self._worker
        await _end(self._agent)
        await self.link.withdraw()
        await self._membership.leave(Leaving(why=_WHY))
        await self._open.aclose()

    async def vanish(self) -> None:
        """Without a word: as of a box whose processes are killed, its connections end and nothing comes any more."""
        if self._relay is not None:
            await self._relay.__aexit__()
        await _end([*self._agent, *([self._worker] if self._worker else [])])
        await self._open.aclose()


class _Agent:
    """What the agent of a machine says and hears, with all programs up."""

    def __init__(
        self, folder: MachineFolder, config: MachineConfig, box: str, r: Client, keys: Keys, renewal: Renewal
    ) -> None:
        self._config, self._box, self._r, self._keys = config, box, r, keys
        self._began_ms = int(time.time() * 1000)
        machine_id = config.machine.id
        self.link = Link(r, keys, machine_id, self._report, renewal.refused)
        self._trust = Trust(
            lambda: read_key(folder.command_key, machine_id),
            folder.read_state("").floor,
            renew=renewal.renew,
            changed=self.link.dirty,
        )
        self.orders = CommandFollower(
            r,
            keys,
            machine_id,
            last="",
            trust=self._trust,
            catch_up=self._catch_up,
            carry_out=self._carry_out,
            remember=lambda _: None,
        )
        self.link.event("machine_status", status=MachineStatus.READY, error="")

    def _report(self) -> MachineReport:
        said = machine_report(self._config.machine, self._config.generation, self._began_ms)
        pid, package = os.getpid(), self._config.package
        programs = {name: structs.replace(p, pid=pid) if p.pid else p for name, p in said.programs.items()}
        return structs.replace(
            said,
            box=self._box,
            boot_id=f"{pid}-{self._box[:8]}",
            host=platform.node(),
            programs=programs,
            package=package.digest if package else "",
        )

    async def _catch_up(self) -> None:
        found = await self._trust.config(self._r, self._keys, self._config)
        if found is not None and found != self._config:
            self._config = found
            self.link.dirty()

    async def _carry_out(self, command: StampedCommand) -> None:
        """There is nothing to start or stop."""
        if command.verb is CommandVerb.APPLY_CONFIG:
            await self._catch_up()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
