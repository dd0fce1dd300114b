"""A simulated world for the reconciler's decisions: hosts, supervisords, agents, workers, Redis. No I/O, no clock.

Each part does what the real one does, one virtual step at a time: `Host` is a machine's supervisord with its programs
(restarts, retries, FATAL) and its agent (start-up sequence, commands, report); `World.step` is what runtime, executor
and agent make of an Operation. `World.look` is what the observer would see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from emp_orch.fleet.desired.containers import container_hash
from emp_orch.fleet.desired.machines import config_hash
from emp_orch.fleet.desired.startup import has_failed, is_up, phases
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import MachineId, ProgramName, WorkerId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import (
    ConnectorReport,
    ConnectorStatus,
    Instance,
    InstanceState,
    MachineReport,
    MachineStatus,
    Malformed,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    SeenWorker,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan.operations import Operation, Verb

TICK_MS = 1_000
# As templates/supervisord.conf.j2 has it.
START_RETRIES = 3
_STARTABLE = frozenset({ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL, ProgramState.UNKNOWN})
# As store/reports/reports has it, in ticks: a living writer makes a damaged document whole again.
TICKS_PER_DOCUMENT = 8
# What a program of a generation that cannot work says first; the image whose containers end at once.
BROKEN = "broken"
# The digest of a worker package whose workers end at once.
BROKEN_PACKAGE = "b" * 64
# How long such a container lives until its engine starts it again.
LOOP_MS = 7_000
# How long a flaky program runs each time.
FLAKY_MS = 6_000
JOB_MS = 7_000
COMMAND_TICKS = 1
# As machine/observe/programs.py compares its host's clock with Redis'.
TICKS_PER_OFFSET = 10


def digest_of(desired: Desired) -> str:
    """The worker package that is desired; empty where none is."""
    return desired.package.digest if desired.package else ""


@dataclass
class Program:
    """One supervisord process."""

    want: DesiredProgram
    state: ProgramState = ProgramState.STOPPED
    since_ms: int = 0
    exit_status: int | None = None
    healthy: bool | None = None
    retries: int = 0
    pid: int = 0
    ends_ms: list[int] = field(default_factory=list)
    # The worker package that it was started from.
    package: str = ""
    # Faults: it exits right after its start, or a while later; it does not answer its health check; its start is slow.
    crashes: bool = False
    flaky: bool = False
    sick: bool = False
    slow_ms: int = 0

    @property
    def answers(self) -> bool:
        return self.state is ProgramState.RUNNING and not self.sick

    @property
    def fails(self) -> bool:
        return self.crashes or BROKEN in self.want.argv or self.package == BROKEN_PACKAGE

    def go(self, state: ProgramState, now_ms: int) -> None:
        self.state, self.since_ms, self.healthy = state, now_ms, None

    def start(self, now_ms: int, pid: int) -> None:
        if self.state in _STARTABLE:
            self.retries = 0
            self.pid = pid
            self.go(ProgramState.STARTING, now_ms)

    def stop(self, now_ms: int) -> None:
        if self.state not in _STARTABLE:
            self.go(ProgramState.STOPPED, now_ms)

    def advance(self, now_ms: int) -> None:
        """What supervisord makes of it by itself in one tick."""
        if now_ms - self.since_ms < self.slow_ms and self.state in (ProgramState.STARTING, ProgramState.RUNNING):
            return
        match self.state:
            case ProgramState.STARTING if self.fails and self.want.kind.once:
                self.exit_status = 1
                self.go(ProgramState.EXITED, now_ms)
            case ProgramState.STARTING if self.fails:
                self.retries += 1
                self.go(ProgramState.FATAL if self.retries > START_RETRIES else ProgramState.BACKOFF, now_ms)
            case ProgramState.STARTING if self.want.kind.once:
                self.go(ProgramState.RUNNING, now_ms)
            case ProgramState.STARTING:
                self.go(ProgramState.RUNNING, self.since_ms)
            case ProgramState.RUNNING if self.want.kind.once:
                self.exit_status = 1 if self.fails else 0
                self.go(ProgramState.EXITED, now_ms)
            case ProgramState.RUNNING if self.fails or (self.flaky and now_ms - self.since_ms >= FLAKY_MS):
                self.exit_status = 1
                self.ends_ms = [*self.ends_ms, now_ms][-8:]
                self.go(ProgramState.EXITED, now_ms)
            case ProgramState.RUNNING if self.want.health is not None:
                self.healthy = not self.sick
            case ProgramState.EXITED if not self.want.kind.once:
                self.go(ProgramState.STARTING, now_ms)  # autorestart
            case ProgramState.BACKOFF:
                self.go(ProgramState.STARTING, now_ms)
            case ProgramState.STOPPING:
                self.go(ProgramState.STOPPED, now_ms)
            case _:
                pass

    def report(self, ahead_ms: int = 0) -> ProgramReport:
        """Times are this host's clock less what the agent takes Redis' to be ahead of it."""
        exited = self.state is ProgramState.EXITED
        return ProgramReport(
            state=self.state,
            pid=self.pid,
            since_ms=self.since_ms + ahead_ms if self.since_ms else 0,
            ends_ms=tuple(at + ahead_ms for at in self.ends_ms),
            exit_status=self.exit_status if exited else None,
            healthy=self.healthy,
        )


@dataclass
class Command:
    key: str
    verb: Verb
    program: ProgramName | None
    ticks: int = COMMAND_TICKS


@dataclass
class Host:
    """One life of a machine: its supervisord, programs and agent. `machine` is the configuration it runs, `container`
    and `image` what it was made from, `package` what its workers start from. A container of a broken image ends again
    and again, each time at once; its engine started it last at `again_ms`.
    """

    machine: DesiredMachine
    generation: int
    started_ms: int
    agent_started_ms: int
    programs: dict[ProgramName, Program]
    container: str = ""
    image: str = ""
    package: str = ""
    again_ms: int = 0
    digest: str = ""
    status: MachineStatus = MachineStatus.STARTING
    error: str = ""
    # The start-up sequence: None once it has ended, else which programs it has begun and which have settled.
    begun: set[ProgramName] | None = field(default_factory=set)
    settled: set[ProgramName] = field(default_factory=set)
    orders: list[Command] = field(default_factory=list)
    # Faults: the agent neither reports nor obeys; workers that hang, or that believe in another machine.
    hung: bool = False
    hung_workers: set[WorkerId] = field(default_factory=set)
    strayed: set[WorkerId] = field(default_factory=set)
    # No way to Redis, for the agent and the workers; what the agent last knew of how far Redis' clock is ahead.
    cut: bool = False
    # No way to Redis for the workers alone.
    workers_cut: bool = False
    ahead_ms: int | None = None
    clock_ahead_ms: int = 0
    # It was told to stop: busy workers end their jobs, for a while, and it ends.
    stopping_since_ms: int = 0
    # Restarts of the agent since a machine was ready decide between starting and configuring.
    was_ready: bool = False

    @property
    def error_ms(self) -> int:
        """What the agent adds to a time to say it by Redis' clock."""
        return self.clock_ahead_ms + (self.ahead_ms or 0)

    def report(self) -> MachineReport:
        self.digest = self.digest or config_hash(self.machine)
        return MachineReport(
            machine_id=self.machine.id,
            status=self.status,
            boot_id=str(self.started_ms),
            generation=self.generation,
            config_hash=self.digest,
            num_gpus=self.machine.num_gpus,
            programs={name: p.report(self.error_ms) for name, p in self.programs.items()},
            host="simulated",
            agent_version="0",
            started_ms=self.agent_started_ms + self.error_ms,
            error=self.error,
            package=self.package,
        )

    def start_worker_package(self) -> None:
        """What starts now starts from the package that is there."""
        for program in self.programs.values():
            if program.want.kind is ProgramKind.WORKER and program.state is not ProgramState.RUNNING:
                program.package = self.package

    def services(self, slot: int | None) -> Iterable[Program]:
        """The services of one slot's own: its worker works on them, and takes no job while one does not answer."""
        return [p for p in self.programs.values() if p.want.kind is ProgramKind.SERVICE and p.want.slot == slot]

    def up(self, program: DesiredProgram) -> bool:
        got = self.programs.get(program.name)
        return is_up(program, got.report() if got else None)

    def take_over(self, machine: DesiredMachine, generation: int, now_ms: int) -> set[WorkerId]:
        """Run another configuration from now on, in place. Returns the workers that were stopped in order."""
        wanted = {p.name: p for p in machine.programs}
        gone = {n for n, p in self.programs.items() if n not in wanted or not _same(p.want, wanted[n])}
        ended = [p.want for n, p in self.programs.items() if n in gone and p.want.kind is ProgramKind.WORKER]
        stopped = {WorkerId(f"{self.machine.id}-worker-{want.slot}") for want in ended}
        self.programs = {n: p for n, p in self.programs.items() if n not in gone}
        if gone or wanted.keys() - self.programs.keys():
            self.status = MachineStatus.CONFIGURING
        for name, want in wanted.items():
            self.programs.setdefault(name, Program(want=want))
        self.machine, self.generation, self.digest = machine, generation, ""
        self.begun, self.settled = set(), set()
        return stopped

    def sequence(self, now_ms: int) -> None:
        """One look of the agent's start-up sequence (machine/boot/sequence.py) at its programs."""
        if self.begun is None or self.stopping_since_ms:
            return
        by_name = {p.name: p for p in self.machine.programs}
        if all(self.up(p) for p in by_name.values()):
            self.begun, self.error, self.status, self.was_ready = None, "", MachineStatus.READY, True
            return
        if not self.begun and not self.settled:
            self.status = MachineStatus.CONFIGURING if self.was_ready else MachineStatus.STARTING
            self.error = ""
        for phase in phases(self.machine):
            for want in phase.programs:
                self._bring_up(want, by_name, now_ms)
            if not all(p.name in self.settled for p in phase.programs):
                return
        self.status = MachineStatus.CONFIGURING

    def _bring_up(self, want: DesiredProgram, by_name: dict[ProgramName, DesiredProgram], now_ms: int) -> None:
        assert self.begun is not None
        got = self.programs.get(want.name)
        before = [by_name[name] for name in want.after if name in by_name]
        if want.name not in self.begun:
            if all(self.up(p) for p in before):
                self.begun.add(want.name)
                if not self.up(want) and got is not None:
                    got.start(now_ms, now_ms)
            elif any(p.name in self.settled and not self.up(p) for p in before):
                self.settled.add(want.name)
        elif self.up(want) or got is None or has_failed(want, got.report()):
            self.settled.add(want.name)
        trouble = sorted(name for name in self.settled if not self.up(by_name[name]))
        self.error = f"not up: {', '.join(trouble)}" if trouble else ""
        if trouble:
            self.status = MachineStatus.CONFIGURING


def _same(a: DesiredProgram, b: DesiredProgram) -> bool:
    """Whether supervisord would keep `a` when its file says `b`."""
    return (a.argv, a.env, a.cwd, a.stop, a.start_s) == (b.argv, b.env, b.cwd, b.stop, b.start_s)


def fresh_host(machine: DesiredMachine, generation: int, now_ms: int, package: str = "") -> Host:
    """A machine that has just been started."""
    return Host(
        container=container_hash(machine),
        image=machine.container.image if machine.container else "",
        package=package,
        machine=machine,
        generation=generation,
        started_ms=now_ms,
        agent_started_ms=now_ms + 500,
        programs={p.name: Program(want=p) for p in machine.programs},
    )


@dataclass
class World:
    """All there is. `documents` and `workers` are Redis: report, or None for one that cannot be read; and when seen.

    `now_ms` is time itself, `redis_ahead_ms` how far Redis' clock is ahead of it. `changed` is the number of the last
    change of each document, `seq` the last number given. `foreign` are machines that somebody else started.
    """

    now_ms: int
    hosts: dict[MachineId, Host] = field(default_factory=dict)
    documents: dict[MachineId, tuple[MachineReport | None, int]] = field(default_factory=dict)
    workers: dict[WorkerId, tuple[WorkerReport | None, int]] = field(default_factory=dict)
    # Machines that were started here once: their folder is still there.
    known: set[MachineId] = field(default_factory=set)
    # Operations of the reconciler itself that are not done yet, with the ticks they still take.
    running: dict[str, tuple[Operation, int]] = field(default_factory=dict)
    configs: dict[MachineId, tuple[DesiredMachine, int, str]] = field(default_factory=dict)
    changed: dict[tuple[str, str], int] = field(default_factory=dict)
    seq: int = 0
    # When each was last heard, by time itself.
    heard: dict[str, int] = field(default_factory=dict)
    foreign: set[MachineId] = field(default_factory=set)
    # What workers are at, and until when; jobs that wait, and that were done.
    jobs: dict[WorkerId, int] = field(default_factory=dict)
    waiting: int = 0
    completed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    redis_ahead_ms: int = 0
    # Rises with all that happens between two ticks.
    version: int = 0
    # Faults.
    redis_away: bool = False
    blind: set[MachineId] = field(default_factory=set)
    unstartable: set[MachineId] = field(default_factory=set)
    lost_commands: bool = False
    observing_since_ms: int = 0

    # -- what can be seen

    @property
    def redis_ms(self) -> int:
        return self.now_ms + self.redis_ahead_ms

    def look(self) -> Observed:
        """Raises nothing and knows nothing that the real observer would not."""
        assert not self.redis_away, "nobody can look while Redis is away"
        return Observed(
            now_ms=self.redis_ms,
            observing_since_ms=self.observing_since_ms,
            machines={i: SeenMachine(report=r, seen_ms=s) for i, (r, s) in self.documents.items() if r is not None},
            workers={i: SeenWorker(report=r, seen_ms=s) for i, (r, s) in self.workers.items() if r is not None},
            instances=self.instances(self.redis_ahead_ms),
            answered=(RuntimeKind.PROCESS, RuntimeKind.COMPOSE),
            malformed=(
                *(_malformed("machine", i, s) for i, (r, s) in self.documents.items() if r is None),
                *(_malformed("worker", i, s) for i, (r, s) in self.workers.items() if r is None),
            ),
        )

    def instances(self, ahead_ms: int = 0) -> dict[MachineId, Instance]:
        """What the runtime says, by a clock that is `ahead_ms` ahead."""
        return {i: self._instance(i, ahead_ms) for i in sorted({*self.known, *self.hosts} - self.foreign)}

    def _instance(self, machine_id: MachineId, ahead_ms: int) -> Instance:
        if machine_id in self.blind:
            return Instance(machine_id=machine_id, state=InstanceState.UNKNOWN, detail="its runtime does not answer")
        host = self.hosts.get(machine_id)
        if host is None:
            return Instance(machine_id=machine_id, state=InstanceState.GONE)
        return Instance(
            machine_id=machine_id,
            state=InstanceState.RUNNING,
            started_ms=(host.again_ms or host.started_ms) + ahead_ms,
            boot_id=str(host.started_ms),
            pid=1,
            container=host.container,
        )

    # -- what happens by itself

    def advance(self) -> list[str]:
        """One tick. Returns the keys of operations whose outcome became known."""
        self.now_ms += TICK_MS
        done = self._work_on()
        for host in self.hosts.values():
            if host.image == BROKEN:
                if self.now_ms - (host.again_ms or host.started_ms) >= LOOP_MS:
                    host.again_ms = self.now_ms
                continue
            host.start_worker_package()
            for program in host.programs.values():
                program.advance(self.now_ms)
            reached = not self.redis_away and not host.cut
            if not reached:
                host.ahead_ms = None
            elif host.ahead_ms is None or self.now_ms // TICK_MS % TICKS_PER_OFFSET == 0:
                host.ahead_ms = self.redis_ahead_ms - host.clock_ahead_ms
            if not host.hung:
                host.sequence(self.now_ms)
                if reached:
                    done += self._obey(host)
                    self._write(host)
            if reached and not host.workers_cut:
                self._workers_of(host)
        self._return_jobs()
        for host in [h for h in self.hosts.values() if h.stopping_since_ms]:
            host.status = MachineStatus.DRAINING
            busy = any(wid in self.jobs for wid, _ in self.worker_ids(host))
            if not busy or self.now_ms - host.stopping_since_ms >= host.machine.drain_timeout_s * 1000:
                self.stop(host.machine.id, in_order=not host.hung)
        return done

    def put(self, machine_id: MachineId, report: MachineReport | None) -> None:
        """Write a machine's document, or only that it was heard when it says the same."""
        if self.documents.get(machine_id, (None, 0))[0] != report or report is None:
            self._number("machine", machine_id)
        self.documents[machine_id] = (report, self.redis_ms)
        self.heard[machine_id] = self.now_ms

    def put_worker(self, wid: WorkerId, report: WorkerReport | None) -> None:
        if self.workers.get(wid, (None, 0))[0] != report or report is None:
            self._number("worker", wid)
        self.workers[wid] = (report, self.redis_ms)
        self.heard[wid] = self.now_ms

    def drop(self, machine_id: MachineId) -> None:
        if self.documents.pop(machine_id, None) is not None:
            self._number("machine", machine_id)

    def drop_worker(self, wid: WorkerId) -> None:
        if self.workers.pop(wid, None) is not None:
            self._number("worker", wid)

    def _number(self, kind: str, subject: str) -> None:
        self.seq += 1
        self.changed[kind, subject] = self.seq

    def empty(self) -> None:
        """FLUSHALL, as far as it is about reports and configurations."""
        self.documents.clear()
        self.workers.clear()
        self.changed.clear()
        self.configs.clear()
        self.seq = self.redis_ms * 1_000

    def worker_ids(self, host: Host) -> Iterable[tuple[WorkerId, Program]]:
        for name, program in host.programs.items():
            if name.startswith("redis-worker-gpu"):
                yield WorkerId(f"{host.machine.id}-worker-{program.want.slot}"), program

    def _return_jobs(self) -> None:
        """A job whose worker or service is gone waits again; the queue's leases see to that."""
        alive = {
            wid
            for host in self.hosts.values()
            for wid, program in self.worker_ids(host)
            if program.state is ProgramState.RUNNING
            and wid not in host.hung_workers
            and all(p.state is ProgramState.RUNNING for p in host.services(program.want.slot))
        }
        for wid in [wid for wid in self.jobs if wid not in alive]:
            del self.jobs[wid]
            self.waiting += 1

    def _at_work(self, wid: WorkerId, host: Host, *, able: bool) -> bool:
        """Go on with a job, end it, or claim the next."""
        if self.jobs.get(wid, self.now_ms + 1) <= self.now_ms:
            del self.jobs[wid]
            self.completed += 1
        if able and wid not in self.jobs and self.waiting and host.status is not MachineStatus.DRAINING:
            self.waiting -= 1
            self.jobs[wid] = self.now_ms + JOB_MS
        return wid in self.jobs

    def _write(self, host: Host) -> None:
        machine_id, report = host.machine.id, host.report()
        before = self.documents.get(machine_id)
        # An unchanged report is only a heartbeat, which leaves a damaged document as it is for a while.
        if before is not None and before[0] is None and (self.now_ms // TICK_MS) % TICKS_PER_DOCUMENT:
            self.documents[machine_id] = (None, self.redis_ms)
        else:
            self.put(machine_id, report)

    def _workers_of(self, host: Host) -> None:
        for wid, program in self.worker_ids(host):
            if program.state is not ProgramState.RUNNING or wid in host.hung_workers:
                continue
            young = self.now_ms - program.since_ms < 2 * TICK_MS
            services = host.services(program.want.slot)
            able = all(p.answers for p in services)
            working = WorkerStatus.IDLE if young or not self._at_work(wid, host, able=able) else WorkerStatus.BUSY
            report = WorkerReport(
                worker_id=wid,
                machine_id=MachineId("elsewhere") if wid in host.strayed else host.machine.id,
                gpu=program.want.slot or 0,
                status=WorkerStatus.INITIALIZING if young else working,
                capabilities={"services": [p.want.service for p in services]},
                connector_statuses={str(p.want.service): _connector(p) for p in services},
                started_ms=program.since_ms + host.error_ms,
                package=program.package,
            )
            damaged = self.workers.get(wid, (report, 0))[0] is None
            beat = damaged and (self.now_ms // TICK_MS) % TICKS_PER_DOCUMENT and not young
            if beat:
                self.workers[wid] = (None, self.redis_ms)
            else:
                self.put_worker(wid, report)

    def _obey(self, host: Host) -> list[str]:
        """Carry out the first command, when its time has come."""
        if not host.orders:
            return []
        command = host.orders[0]
        command.ticks -= 1
        if command.ticks >= 0:
            return []
        host.orders.pop(0)
        program = host.programs.get(command.program) if command.program else None
        match command.verb:
            case Verb.SEND_CONFIG if host.machine.id not in self.configs:
                self.refused.append((command.key, "there is no configuration"))
                return []
            case Verb.SEND_CONFIG:
                machine, generation, host.package = self.configs[host.machine.id]
                for wid in host.take_over(machine, generation, self.now_ms):
                    self.drop_worker(wid)
            case Verb.START_PROGRAM if program is not None:
                program.start(self.now_ms, self.now_ms)
            case Verb.RESTART_PROGRAM if program is not None:
                if program.want.kind is ProgramKind.WORKER:
                    wid = WorkerId(f"{host.machine.id}-worker-{program.want.slot}")
                    if wid not in host.hung_workers:
                        self.drop_worker(wid)
                    host.hung_workers.discard(wid)
                    host.strayed.discard(wid)
                program.stop(self.now_ms)
                host.start_worker_package()
                program.start(self.now_ms, self.now_ms)
            case Verb.STOP_PROGRAM if program is not None:
                program.stop(self.now_ms)
            case _:
                pass
        return [] if self.lost_commands else [command.key]

    # -- what the reconciler does

    def begin(self, operation: Operation, desired: Desired) -> None:
        """Begin `operation`: one of the reconciler's own takes ticks, a command goes to the agent."""
        machine = desired.machines.get(operation.machine_id)
        match operation.verb:
            case Verb.START_MACHINE:
                self.running.setdefault(operation.key, (operation, 1))
            case Verb.RESTART_MACHINE | Verb.REMOVE_MACHINE:
                self.running.setdefault(operation.key, (operation, 3))
            case Verb.FORGET_WORKER:
                self.running.setdefault(operation.key, (operation, 0))
            case Verb.SEND_CONFIG | Verb.START_PROGRAM | Verb.RESTART_PROGRAM | Verb.STOP_PROGRAM:
                host = self.hosts.get(operation.machine_id)
                if host is not None and not self.lost_commands:
                    host.orders.append(Command(key=operation.key, verb=operation.verb, program=operation.program))
        if machine is not None and operation.verb in (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.SEND_CONFIG):
            self.configs[machine.id] = (machine, desired.generation, digest_of(desired))

    def _work_on(self) -> list[str]:
        done = []
        for key, (operation, ticks) in list(self.running.items()):
            if ticks > 0:
                self.running[key] = (operation, ticks - 1)
                continue
            del self.running[key]
            self._finish(operation)
            done.append(key)
        return done

    def _finish(self, operation: Operation) -> None:
        machine_id = operation.machine_id
        match operation.verb:
            case Verb.RESTART_MACHINE:
                self.stop(machine_id, in_order=not self.hosts[machine_id].hung if machine_id in self.hosts else False)
                self._start(machine_id)
            case Verb.START_MACHINE:
                self._start(machine_id)
            case Verb.REMOVE_MACHINE:
                self.stop(machine_id, in_order=True)
                self.forget(machine_id)
            case Verb.FORGET_WORKER if operation.worker_id is not None:
                self.forget_worker(operation.worker_id, operation.seen_ms)
            case _:
                pass

    def forget(self, machine_id: MachineId) -> None:
        self.known.discard(machine_id)
        self.drop(machine_id)
        for wid in [i for i, (r, _) in self.workers.items() if (r.machine_id if r else machine_of(i)) == machine_id]:
            self.drop_worker(wid)

    def forget_worker(self, wid: WorkerId, seen_ms: int | None) -> None:
        """Unless it was heard since."""
        if seen_ms is not None and self.workers.get(wid, (None, 0))[1] <= seen_ms:
            self.drop_worker(wid)

    def _start(self, machine_id: MachineId) -> None:
        if machine_id in self.hosts or machine_id in self.unstartable:
            return
        self.start(*self.configs[machine_id])

    def start(self, machine: DesiredMachine, generation: int, package: str = "") -> None:
        """What a runtime does: one that runs already is left alone."""
        if machine.id not in self.hosts:
            self.known.add(machine.id)
            self.hosts[machine.id] = fresh_host(machine, generation, self.now_ms, package)

    def stop(self, machine_id: MachineId, *, in_order: bool) -> None:
        """End a machine; only one that ends in good order takes its reports away."""
        host = self.hosts.pop(machine_id, None)
        if host is None or not in_order:
            return
        if self.redis_away or host.cut:
            return
        self.drop(machine_id)
        for slot in range(host.machine.num_gpus):
            self.drop_worker(WorkerId(f"{machine_id}-worker-{slot}"))


def _connector(program: Program) -> ConnectorReport:
    return ConnectorReport(status=ConnectorStatus.IDLE if program.answers else ConnectorStatus.ERROR)


def _malformed(kind: str, subject: str, seen_ms: int) -> Malformed:
    return Malformed(kind=kind, id=subject, error="Expected `object`, got `int`", seen_ms=seen_ms)
