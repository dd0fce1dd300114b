"""One real machine without a control plane: what a reconciler would send it comes from the test."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import AGENT, ProgramName, Service
from emp_orch.fleet.model.observed import MachineReport, ProgramReport, ProgramState
from emp_orch.procident import ProcessIdentity, alive, end_recorded, recorded, spawn_daemon
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from emp_orch.runtimes.process.supervisor import Supervisor
from emp_orch.seals import KEY_BYTES, CommandKey
from emp_orch.store.fleet.commands import Ack, Command, CommandVerb, send
from emp_orch.store.fleet.configs import MachineConfig, write_config
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.leader import Leadership, Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import HEALTH, fleet, machine, service
from support.redis.server import until

KEYS = Keys("b:")
M = "m"


def sleeper(name: str, **changes: Any) -> Service:
    """A service that does nothing, for ever."""
    return service(name, command=("sleep", "100000"), **changes)


def web(name: str, port: int, **changes: Any) -> Service:
    """A service that listens on `port`, with a health check."""
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "${port}")
    health = msgspec.structs.replace(HEALTH, http="/", interval_s=0.1)
    return service(name, command=command, port=port, health=health, **changes)


def desired(*services: Service) -> DesiredMachine:
    m = machine(M, services=[s.name for s in services], num_gpus=0)
    return desired_machine(fleet(services, m), m)


class Box:
    """A machine in `folder` that reports to `r`. `stop` ends it, whatever state it is in."""

    def __init__(self, folder: Path, r: Client, url: str) -> None:
        self.root = folder / "machine"
        self.root.mkdir(parents=True)
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._r = r
        self._url = url
        self._generation = 0
        self._commands = 0
        self._key = CommandKey(fleet="f", machine=M, key=secrets.token_hex(KEY_BYTES))

    async def write(self, machine: DesiredMachine) -> None:
        """Write what it is to run."""
        self._generation += 1
        text = render_machine(read_text("templates/supervisord.conf.j2"), machine)
        config = MachineConfig(
            generation=self._generation, digest=config_hash(machine), supervisord=text, machine=machine
        )
        (self.root / "orders.json").write_bytes(msgspec.json.encode(self._key))
        await write_config(self._r, KEYS, await self._mandate(), config, self._key.seal)

    async def _mandate(self) -> Mandate:
        mandate = await Leadership(self._r, KEYS, "f", "test", ttl_ms=60_000).acquire()
        assert isinstance(mandate, Mandate), mandate
        return mandate

    async def start(self, machine: DesiredMachine) -> None:
        await self.write(machine)
        argv = [sys.executable, "-m", "emp_orch", "machine", M, "--dir", str(self.root), "--logs", str(self._logs)]
        env = {**os.environ, "HUB_REDIS_URL": self._url, "EMP_REDIS_PREFIX": KEYS.prefix}
        log = self._logs / f"machine-{M}.log"
        self._child = await asyncio.to_thread(
            lambda: spawn_daemon(argv, log=log, env=env, cwd=self.root, timeout_s=30.0)
        )

    async def stop(self) -> None:
        who = recorded(self.root / "run" / "supervisord")
        if who is not None and alive(who):
            await Supervisor(self.root).end(who, drain_s=20.0, stop_s=20.0, keep=frozenset({AGENT}))
        identities = list((self.root / "run").iterdir()) if (self.root / "run").exists() else []
        await asyncio.to_thread(end_recorded, identities, grace_s=5.0)
        self._child.wait()

    # -- what it says

    async def report(self) -> MachineReport | None:
        text = await self._r.hget(KEYS.machines, M)
        return None if text is None else msgspec.json.decode(text, type=MachineReport)

    async def until(self, condition: Callable[[MachineReport], Any], *, within_s: float = 30.0) -> MachineReport:
        """The first report for which `condition` is true."""

        async def look() -> MachineReport | None:
            found = await self.report()
            return found if found is not None and condition(found) else None

        try:
            answer: MachineReport = await until(look, within_s=within_s)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s; last report: {await self.report()}{self.logs()}") from None
        return answer

    async def until_program(self, name: str, condition: Callable[[ProgramReport], Any]) -> ProgramReport:
        """The first report of a program for which `condition` is true."""
        key = ProgramName(name)
        found = await self.until(lambda m: key in m.programs and condition(m.programs[key]))
        return found.programs[key]

    async def events(self, type_: str) -> list[dict[str, Any]]:
        return [e.data for e in await Events(self._r, KEYS).recent(1_000) if e.type == type_]

    def logs(self) -> str:
        return "".join(f"\n--- {p.name}\n{p.read_text()[-2_000:]}" for p in self._logs.rglob("*.log"))

    # -- what it is told

    async def command(self, verb: CommandVerb, program: str | None = None) -> Ack:
        """Send a command and wait for its answer."""
        self._commands += 1
        seq = str(self._commands)
        order = Command(verb=verb, seq=seq, program=program)
        await send(self._r, KEYS, await self._mandate(), M, order, seal=self._key.seal, count=self._commands)

        async def answer() -> Ack | None:
            entries: Any = await self._r.xrange(KEYS.acks(M))
            acks = [msgspec.json.decode(fields["ack"], type=Ack) for _, fields in entries]
            return next((a for a in acks if a.seq == seq), None)

        ack: Ack = await until(answer, within_s=30.0)
        return ack

    # -- what runs

    def program(self, name: str) -> ProcessIdentity | None:
        """The living process of a program; None when it does not run."""
        who = recorded(self.root / "run" / name)
        return who if who is not None and alive(who) else None

    async def kill(self, name: str) -> ProcessIdentity:
        """Kill a program's process."""
        who = self.program(name)
        assert who is not None, name
        os.kill(who.pid, 9)
        return who


def running(report: ProgramReport) -> bool:
    return report.state is ProgramState.RUNNING
