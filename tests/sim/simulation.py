"""The whole: a world, a Redis, two reconcilers, what lies between them, and people. One call, one thing happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgspec
from msgspec import structs

from emp_orch.control.host.generation import as_desired
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import Fleet, MachineId, ProgramName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.plan.operations import Verb
from emp_orch.machine.agent.commands import CommandFollower
from emp_orch.machine.home.trust import Floor, Trust
from emp_orch.seals import KEY_BYTES, CommandKey, Stamp, for_command
from emp_orch.store.fleet import commands
from emp_orch.store.fleet.commands import CommandVerb
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.requests import Request
from emp_orch.store.fleet.requests import Verb as Asked
from emp_orch.store.redis.keys import Keys
from sim import fleets
from sim.node import Node
from sim.redis import FLEET, SimRedis
from sim.watch import Watch
from support.fleet.world import TICK_MS, TICKS_PER_OFFSET, Command, Host, World, fresh_host

_VERBS = {
    CommandVerb.APPLY_CONFIG: Verb.SEND_CONFIG,
    CommandVerb.START_PROGRAM: Verb.START_PROGRAM,
    CommandVerb.RESTART_PROGRAM: Verb.RESTART_PROGRAM,
    CommandVerb.STOP_PROGRAM: Verb.STOP_PROGRAM,
}
FOREIGN = MachineId("x0")
JOBS = 6


@dataclass
class Ack:
    due_ms: int
    key: str
    error: str


class Agent:
    """The part of a machine's agent that reads its stream: it judges by the real machine/agent/commands.py."""

    def __init__(self, host: Host, last: int, epoch: int) -> None:
        self.host = host
        self.last = last
        self.epoch = epoch
        self.deaf_until_ms = 0
        nothing: Any = None
        key = self._key = CommandKey(fleet=FLEET, machine=host.machine.id, key="ab" * KEY_BYTES)
        self._commands = CommandFollower(
            nothing,
            Keys(),
            host.machine.id,
            last=str(last),
            trust=Trust(lambda: key, Floor(key=key.seal.name, stamp=Stamp(epoch=epoch))),
            catch_up=self._catch_up,
            carry_out=self._carry_out,
            remember=lambda last: None,
        )

    async def _catch_up(self) -> None: ...

    async def _carry_out(self, command: commands.StampedCommand) -> None:
        program = ProgramName(command.program) if command.program else None
        self.host.orders.append(Command(key=command.seq, verb=_VERBS[command.verb], program=program))

    def hear(self, command: commands.StampedCommand) -> commands.Ack | None:
        """What it says to a command; None to one that was said before."""
        purpose = for_command(self._key.fleet, self._key.machine)
        answer = self._commands._answer(self._key.seal.sealed(purpose, msgspec.json.encode(command)).decode())
        try:
            answer.send(None)
        except StopIteration as done:
            return cast(commands.Ack | None, done.value)
        raise AssertionError("an agent of this world never waits")


class Simulation:
    def __init__(self) -> None:
        self.world = World(now_ms=fleets.START_MS, observing_since_ms=fleets.START_MS, waiting=JOBS)
        self.jobs = JOBS
        self._desired: tuple[Generation, Desired] | None = None
        self.redis = SimRedis(self.world)
        self.watch = Watch(self.world, self.redis)
        self.log: list[str] = []
        self.watch.log = self.log
        self._add_foreign()
        self.redis.publish(fleets.generation(1, fleets.any_fleet()))
        self.agents: dict[MachineId, Agent] = {}
        self.epochs: dict[MachineId, int] = {}
        self.acks: list[Ack] = []
        self.ack_fault = ""
        self.nodes = [Node(name, self.world, self.redis, self.watch) for name in ("a", "b")]

    def _add_foreign(self) -> None:
        of = as_desired(fleets.generation(1, fleets.any_fleet(names=(FOREIGN,))))
        self.world.hosts[FOREIGN] = fresh_host(of.machines[FOREIGN], 1, fleets.START_MS - 60_000)
        self.world.foreign.add(FOREIGN)

    def booted(self) -> Simulation:
        """Started up and in order, as most histories find it."""
        self.seconds(40)
        return self

    # -- time

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.second()

    def second(self) -> None:
        self._deliver()
        keys = self.world.advance()
        self.watch.advanced()
        outcomes = [*((key, "") for key in keys), *self.world.refused]
        self.world.refused.clear()
        self._acknowledge(outcomes)
        for node in self.nodes:
            node.run()

    def _deliver(self) -> None:
        """What each agent that can be reached finds in its stream."""
        world = self.world
        for machine_id, host in world.hosts.items():
            if machine_id in world.foreign or host.hung or host.cut or world.redis_away:
                continue
            stream = self.redis.streams.get(machine_id, [])
            agent = self.agents.get(machine_id)
            if agent is None or agent.host is not host:
                last = stream[-1][0] if stream else 0
                agent = self.agents[machine_id] = Agent(host, last, self.epochs.get(machine_id, 0))
            if world.now_ms < agent.deaf_until_ms:
                continue
            if stream and stream[-1][0] < agent.last and world.now_ms // TICK_MS % TICKS_PER_OFFSET == 0:
                agent.last = 0  # as machine/agent/commands.py finds its place anew
            for entry_id, command in [e for e in stream if e[0] > agent.last]:
                ack = agent.hear(command)
                agent.last = entry_id
                highest = self.epochs.get(machine_id, 0)
                self.watch.heard(machine_id, command.epoch, highest, obeyed=ack is not None and ack.ok)
                self.epochs[machine_id] = max(highest, command.epoch)
                if ack is not None and not ack.ok:
                    self.world.refused.append((ack.seq, ack.error))

    def _acknowledge(self, outcomes: list[tuple[str, str]]) -> None:
        late_ms = 20_000 if self.ack_fault == "late" else 0
        now_ms = self.world.now_ms
        if self.ack_fault != "lost":
            self.acks += [Ack(now_ms + late_ms, key, error) for key, error in outcomes]
        if self.ack_fault == "twice":
            self.acks += [Ack(now_ms + 5_000, key, error) for key, error in outcomes]
        if self.world.redis_away:
            return
        due = [a for a in self.acks if a.due_ms <= now_ms]
        self.acks = [a for a in self.acks if a.due_ms > now_ms]
        for ack in due:
            self.watch.acknowledged(ack.key)
            for node in self.nodes:
                if not node.frozen and not node.line.cut:
                    node.ended(ack.key, ack.error)

    # -- faults

    def strike(self, fault: str, machine_id: MachineId, *, program: int = 0) -> None:
        """Something breaks. `program` picks one of the machine's."""
        world, host = self.world, self.world.hosts.get(machine_id)
        world.version += 1
        self._say(f"{fault} {machine_id}")
        match fault:
            case "redis away":
                world.redis_away = True
            case "redis back":
                world.redis_away = False
            case "redis emptied":
                self.redis.empty()
                self.watch.shaken()
            case "killed":
                world.stop(machine_id, in_order=False)
            case "blind":
                world.blind.add(machine_id)
            case "seen":
                world.blind.discard(machine_id)
            case "unstartable":
                world.unstartable.add(machine_id)
            case "acks lost" | "acks late" | "acks twice" | "acks well":
                self.ack_fault = fault.removeprefix("acks ")
            case _ if host is not None:
                self._strike_host(fault, host, program)
            case _:
                pass

    def _strike_host(self, fault: str, host: Host, program: int) -> None:
        programs = [p for p in host.programs.values() if not p.want.kind.once]
        agent = self.agents.get(host.machine.id)
        workers = list(host.machine.workers)
        match fault:
            case "hung":
                host.hung = True
            case "cut":
                host.cut = True
            case "joined":
                host.cut = False
            case "workers cut" | "workers joined":
                host.workers_cut = fault == "workers cut"
            case "damaged":
                self.world.put(host.machine.id, None)
            case "deaf" if agent is not None:
                agent.deaf_until_ms = self.world.now_ms + 15_000
            case "hears again" if agent is not None:
                # An agent that forgot its place in the stream, but not the highest epoch.
                agent.last = 0
                self.watch.hears_again(host.machine.id)
            case "worker hung" if workers:
                host.hung_workers.add(workers[program % len(workers)])
            case "worker strayed" if workers:
                host.strayed.add(workers[program % len(workers)])
            case "crashing" | "flaky" | "sick" if programs:
                one = programs[program % len(programs)]
                one.crashes, one.flaky, one.sick = fault == "crashing", fault == "flaky", fault == "sick"
            case "slow" if programs:
                programs[program % len(programs)].slow_ms = 15_000
            case "well":
                for one in host.programs.values():
                    one.crashes = one.flaky = one.sick = False
            case _:
                pass

    def jump(self, ms: int) -> None:
        """Redis' clock is set."""
        self._say(f"redis' clock jumps by {ms} ms")
        self.world.version += 1
        self.redis.jump(ms)
        self.watch.shaken()

    def jump_host(self, machine_id: MachineId, ms: int) -> None:
        """A machine's clock is set, and that of the reconcilers' host."""
        self.world.version += 1
        self._say(f"clock of {machine_id} jumps by {ms} ms")
        self.watch.clock_set()
        if (host := self.world.hosts.get(machine_id)) is not None:
            host.clock_ahead_ms += ms
        for node in self.nodes:
            node.line.clock_ahead_ms += ms

    # -- the reconcilers

    def to_node(self, what: str, node: Node, steps: int) -> None:
        self._say(f"{what} {node.name} {steps}")
        match what:
            case "freeze":
                node.freeze(steps)
            case "thaw":
                node.frozen = False
            case "kill":
                node.freeze(steps)
                node.kill()
                self.redis.release(node.backend.who)
            case "cut":
                node.line.cut = True
            case "deaf":
                node.line.deaf = True
            case "joined":
                node.line.cut = node.line.deaf = False
        if what != "kill" and node.dead:
            node.start()

    # -- people

    def apply(self, of: Fleet, *, prune: bool = False) -> None:
        if self.redis.number == 0 or self.world.redis_away:
            return
        self._say(f"apply {[m.id for m in of.machines]} {of.services} prune={prune}"[:150])
        self.world.version += 1
        self.redis.publish(fleets.generation(self.redis.number + 1, of, prune=prune))
        self.watch.applied()

    def change(self, **changes: Any) -> Fleet:
        """The fleet in force, but for `changes` (see fleets.any_fleet)."""
        current = (
            self.redis.specs.get(self.redis.number) or self.redis.disk or fleets.generation(1, fleets.any_fleet())
        ).fleet
        now: dict[str, Any] = {
            "names": tuple(m.id for m in current.machines),
            "gpus": max((m.num_gpus for m in current.machines), default=1),
            "command": (current.services["web"].command or ("serve",))[0],  # type: ignore[index]
            "image": next((m.image for m in current.machines if m.image), "image:1"),
            "package": fleets.package_of(current),
            "max_unavailable": current.reconcile.max_unavailable,
            "rollback": current.reconcile.rollout.rollback,
        }
        return fleets.any_fleet(**{**now, **changes})

    def override(self, kind: OverrideKind, machine_id: MachineId | None, program: ProgramName | None) -> None:
        if self.world.redis_away:
            return
        word = Override(kind=kind, machine_id=machine_id, program=program, reason="because")
        self._say(f"{word.key}")
        self.redis.overrides[word.key] = word
        self.watch.applied()

    def lift(self, scope: str | None = None) -> None:
        if self.world.redis_away:
            return
        self._say(f"lift {scope}")
        for key in [k for k, o in self.redis.overrides.items() if scope in (None, o.scope)]:
            del self.redis.overrides[key]
        self.watch.applied()

    def ask(self, verb: Asked, machine_id: str = "", program: str | None = None) -> None:
        if self.world.redis_away:
            return
        self._say(f"ask {verb} {machine_id} {program}")
        self.redis.ask(Request(verb=verb, machine_id=machine_id, program=program, by="a person"))

    def submit(self, count: int) -> None:
        """So many jobs more."""
        self.jobs += count
        self.world.waiting += count

    # -- the end

    @property
    def desired(self) -> Desired:
        """What is to be in the end."""
        generation = self.redis.specs.get(self.redis.number) or self.redis.disk
        assert generation is not None
        if self._desired is None or self._desired[0] is not generation:
            self._desired = generation, as_desired(generation)
        return self._desired[1]

    def heal(self) -> None:
        """All faults stop; what hangs may hang on, for that is the reconciler's to mend."""
        self._say("heal")
        world = self.world
        world.version += 1
        world.redis_away = False
        world.blind.clear()
        world.unstartable.clear()
        self.ack_fault = ""
        for agent in self.agents.values():
            agent.deaf_until_ms = 0
        for host in world.hosts.values():
            host.cut = host.workers_cut = False
            for program in host.programs.values():
                program.crashes = program.flaky = program.sick = False
                program.slow_ms = 0
        for node in self.nodes:
            node.line.cut = node.line.deaf = node.frozen = False
            if node.dead:
                node.start()
        self._put_the_clock_right()

    def _put_the_clock_right(self) -> None:
        """Agents refuse whom they take for a former leader: see "Limits" in docs/simulation.md."""
        known = max(self.redis.epoch, self.world.redis_ms, min(node.backend.highest for node in self.nodes))
        behind_ms = max(self.epochs.values(), default=0) - known
        if behind_ms > 0:
            self.jump(behind_ms)

    def people_help(self) -> None:
        """Pauses end, what needs a person gets one, and what cannot work is replaced."""
        if self.redis.overrides:
            self.lift()
        memory = self.redis.memory
        asked = {(r.machine_id, r.program) for r in self.redis.requests.values()}
        for key in memory.quarantined if memory else ():
            _, machine_id, *program = key.split("/", 2)
            one = (machine_id, program[0] if program else None)
            if one not in asked and machine_id in self.desired.machines:
                self.ask(Asked.RESTART_PROGRAM if program else Asked.RESTART_MACHINE, *one)
        generation = self.redis.specs.get(self.redis.number)
        if generation is not None and fleets.is_broken(generation.fleet):
            works = self.change(command="serve", image="image:1", package=fleets.PACKAGE)
            self.apply(structs.replace(works, reconcile=generation.fleet.reconcile))

    def _say(self, what: str) -> None:
        self.log.append(f"{(self.world.now_ms - fleets.START_MS) // TICK_MS} s: {what}")
