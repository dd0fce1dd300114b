"""What must never happen to pools, judged at each round, at each word to an engine, and each second, by the truth.

Each failure names the invariant, as docs/simulation.md lists them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, NoReturn

from msgspec import structs

from emp_orch.fleet.drift.incremental import in_full
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, PoolName, WorkerId
from emp_orch.fleet.model.ids import machine_of, worker_id
from emp_orch.fleet.model.observed import ProgramState, WorkerStatus
from emp_orch.fleet.model.overrides import OverrideKind
from emp_orch.fleet.model.pools import BoxState
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.pools.size import PoolSize
from emp_orch.fleet.round import Inputs, Round, decide
from emp_orch.runtimes.keys.join_tokens import OfMember, OfPool
from sim.pools.boxes import MemberHost
from sim.pools.engine import Engine, Faults
from sim.pools.fleets import DOWN_S, FORGET_S, RENDERS, STALE_S, UP_S
from sim.pools.handing import Handing
from sim.watch import Broken
from support.fleet.world import Host

if TYPE_CHECKING:
    from sim.pools.leader import Process
    from sim.pools.simulation import PoolSimulation

# Of a member that is to be forgotten: attempts are at most a minute apart, and one may take so long.
PATIENCE_MS = 150_000
# Of a member whose box ended: what it said last is to be old, and attempts are apart.
GIVEN_UP_MS = 75_000
# Without a round for so long nobody could have done anything.
GAP_MS = 15_000


class PoolWatch:
    def __init__(self, sim: PoolSimulation) -> None:
        self._sim = sim
        self.log: list[str] = []
        self.rounds = 0
        self.begun: list[str] = []
        self.last: Round | None = None
        self.nothing_to_do = False
        self.handing = Handing(self)
        # Of `renders` at each round: when, how many members its jobs need, how many were wanted.
        self._needed: deque[tuple[int, int, int]] = deque(maxlen=400)
        self._excused: set[MachineId] = set()
        # Members that were forgotten, or are another box now: by when they were born, and their lives.
        self._void: set[tuple[MachineId, int, int]] = set()
        self._known: dict[MachineId, Member] = {}
        self._box_of: dict[tuple[MachineId, int, int], str] = {}
        # Boxes that ended by themselves, while their engine is well, and since when.
        self._ended: dict[MachineId, int] = {}
        self._round_ms = self._steady_ms = sim.world.now_ms
        self._bounds: object = None

    def fail(self, invariant: str, what: str) -> NoReturn:
        raise Broken("\n".join([f"{invariant}: {what}", *self.log[-60:]]))

    def say(self, what: str) -> None:
        self.log.append(f"{(self._sim.world.now_ms - self._sim.began_ms) // 1000} s: {what}")

    # -- what else happens

    def told(self, memory: Memory) -> None: ...

    def lost_sight(self) -> None:
        self._steady_ms = self._sim.world.now_ms

    def excuse(self, machine_id: MachineId) -> None:
        """It is no fault of emp's if its job is begun anew."""
        self._excused.add(machine_id)

    def excuse_all(self) -> None:
        self._excused |= self._sim.world.hosts.keys()

    def returned(self, wid: WorkerId) -> None:
        """A job goes back to its lane: its box was ended under it, or says nothing."""
        if machine_of(wid) not in self._excused:
            self.fail("cut short", f"the job of {wid} is begun anew, and nothing was wrong with its box")

    # -- joins

    def is_void(self, opened: OfPool | OfMember) -> bool:
        """Whether all that the token names was forgotten before it was shown."""
        known = self._sim.members()
        if isinstance(opened, OfMember):
            return (MachineId(opened.member_id), opened.born_ms, opened.life) in self._void
        return bool(opened.member_id) and opened.member_id not in known

    def entered(self, opened: OfPool | OfMember, member: Member, *, void: bool) -> None:
        self.say(f"{member.id} is in")
        if void:
            self.fail(
                "void token",
                f"{member.id} was forgotten, or is another box, and what it had been given let it in: {opened}",
            )
        if self._box_of.setdefault((member.id, member.born_ms, member.life), member.box) != member.box:
            self.fail("void token", f"another box is {member.id}, and what the one before was given opens still")
        host = self._sim.world.hosts.get(member.id)
        if isinstance(host, MemberHost) and host.box != member.box and not host.cut and self._heard(member.id):
            self.fail("one box", f"{member.id} was let in, and another box of that name is heard")

    # -- words to engines

    def created(self, engine: Engine) -> None:
        most = self._sim.pools[engine.pool].max_size
        if len(engine.there) > most:
            self.fail("max", f"{len(engine.there)} boxes of {engine.pool} were asked for, of at most {most}")

    def removing(self, engine: Engine, machine_id: MachineId) -> None:
        """A box is given back: if it lives and can be heard, none of its workers may run."""
        host = self._sim.world.hosts.get(machine_id)
        member = self._sim.members().get(machine_id)
        if host is None or host.cut or machine_id in self._excused or member is None or not self._heard(machine_id):
            return
        if self._sim.world.at_work(machine_id):
            self.fail("busy", f"the box of {machine_id} is given back while a job is on it")
        if _has_workers(host):
            self.fail("drained first", f"the box of {machine_id} is given back, and its workers take jobs")

    def _heard(self, machine_id: MachineId) -> bool:
        """Whether every look of late has it heard."""
        world = self._sim.world
        return world.now_ms - world.heard.get(machine_id, 0) < STALE_S * 1000 / 2

    # -- each second

    def second(self) -> None:
        now_ms, members = self._sim.world.now_ms, self._sim.members()
        for machine_id, known in self._known.items():
            now = members.get(machine_id)
            if now is None or (now.born_ms, now.life) != (known.born_ms, known.life):
                self._void.add((machine_id, known.born_ms, known.life))
            if now is None:
                self._gone(known)
        self._known = members
        for name, pool in self._sim.pools.items():
            count = sum(m.pool == name for m in members.values())
            if count > max(pool.max_size, self._sim.widest.get(name, 0)):
                self.fail("max", f"{name} has {count} members, of at most {pool.max_size}")
        if now_ms - self._round_ms > GAP_MS or self._sim.world.redis_away:
            self._steady_ms = now_ms
        for member in members.values():
            self._forgotten(member, now_ms)
        self._given_up(members, now_ms)
        if any(job.ended > 1 for job in self._sim.world.queue):
            self.fail("once", "a job ended twice")

    def _forgotten(self, member: Member, now_ms: int) -> None:
        """Who is silent for long is no member any more."""
        since_ms = max(self._sim.world.heard.get(member.id, 0), member.joined_ms, self._steady_ms)
        joined = member.state is not MemberState.EXPECTED
        if joined and now_ms - since_ms > FORGET_S * 1000 + PATIENCE_MS:
            self.fail("forgotten", f"{member.id} is silent for {(now_ms - since_ms) // 1000} s, and a member still")

    def _gone(self, member: Member) -> None:
        """Who works and was not told to go is no member any more."""
        host, world = self._sim.world.hosts.get(member.id), self._sim.world
        if host is None or host.cut or member.leaving_ms or member.state is not MemberState.IN:
            return
        if self._heard(member.id) and world.now_ms - self._steady_ms > STALE_S * 1000:
            self.fail("thrown out", f"{member.id} is heard, was not told to go, and is no member any more")

    def _given_up(self, members: Mapping[MachineId, Member], now_ms: int) -> None:
        """Nobody waits for a member whose engine says that its box ended."""
        ended = {
            i
            for engine in self._sim.engines.values()
            for i, t in engine.things.items()
            if engine.faults == Faults() and t.state is BoxState.ENDED and i in members
        }
        self._ended = {i: self._ended.get(i, now_ms) for i in ended}
        for machine_id, at_ms in self._ended.items():
            if now_ms - max(at_ms, self._steady_ms) > GIVEN_UP_MS:
                self.fail("given up", f"the box of {machine_id} ended, and it is a member still")

    # -- rounds

    def judge(self, process: Process, inputs: Inputs, done: Round) -> None:
        """One round, before it acts."""
        self.rounds += 1
        self.last = done
        self._round_ms = self._sim.world.now_ms
        self._same_again(process, inputs, done)
        if self.nothing_to_do and done.decision.run:
            self.fail("idle", f"{[o.text for o in done.decision.run]}")
        bounds = {n: (p.min_size, p.max_size) for n, p in inputs.desired.pools.items()}
        orders = {o.pool: o.size for o in inputs.overrides if o.kind is OverrideKind.SCALE}
        same, self._bounds = (bounds, orders) == self._bounds, (bounds, orders)
        self.handing.judge(inputs, done, orders, same=same)
        for size in done.pools.values():
            self._size(size, inputs, orders, same=same)
        for operation in done.decision.run:
            self.say(f"{process.name}: {operation.text}")
            self.begun.append(f"{operation.verb} {operation.machine_id}")
            self._goes(operation, inputs, done)

    def _same_again(self, process: Process, inputs: Inputs, done: Round) -> None:
        assert process.backend is not None
        drifts = tuple(i.drift for i in done.items if not i.drift.pool)
        whole = process.backend.whole
        if whole is not None and drifts != (full := diff(inputs.desired, whole)):
            odd = [(d.key, d.observed, d.cause) for d in {*drifts} ^ {*full}]
            self.fail("drift book", f"kept and there is, of which one only: {odd or full}")
        if done.decision.run:
            if decide(inputs, drifts) != done:
                self.fail("same again", "the same inputs gave another round")
            recorded = structs.replace(inputs, observed=in_full(inputs.observed, inputs.desired.stale_after_ms))
            replayed = decide(recorded)
            if (replayed.operations, replayed.decision) != (done.operations, done.decision):
                self.fail(
                    "replay", f"{[o.text for o in replayed.operations]} after {[o.text for o in done.operations]}"
                )

    def _size(self, size: PoolSize, inputs: Inputs, orders: dict[PoolName, int], *, same: bool) -> None:
        """`same`: nobody said anything else since the last round."""
        pool = inputs.desired.pools[size.name]
        if size.name in orders and size.wanted != min(orders[size.name], pool.max_size):
            self.fail("order", f"{size.wanted} of {size.name} are wanted, and {orders[size.name]} were ordered")
        if not pool.min_size <= size.wanted <= pool.max_size and size.name not in orders:
            self.fail("max", f"{size.wanted} of {size.name} are wanted, of {pool.min_size}..{pool.max_size}")
        if size.name == RENDERS:
            self._windows(size, inputs, judged=same and size.name not in orders)

    def _windows(self, size: PoolSize, inputs: Inputs, *, judged: bool) -> None:
        """It grows only to what was needed all through the window, and shrinks likewise. `renders` is the cheapest of
        all: every job that it can run is its."""
        pool, now_ms = inputs.desired.pools[size.name], inputs.observed.now_ms
        jobs = sum(w.jobs for w in inputs.observed.waiting if size.name in w.pools)
        jobs += sum(m.jobs for m in size.members if m.counts)
        before = self._needed[-1][2] if self._needed else size.wanted
        self._needed.append((now_ms, ceil(jobs / pool.scale.jobs_per_gpu), size.wanted))
        if size.wanted == before or not judged:
            return
        up = size.wanted > before
        begin_ms = now_ms - int((UP_S if up else DOWN_S) * 1000)
        # What was needed when the window began, and since.
        needs = [n for at, n, _ in self._needed if at <= begin_ms][-1:]
        needs += [n for at, n, _ in self._needed if at > begin_ms]
        lately = [min(pool.max_size, max(pool.min_size, n)) for n in needs]
        worst = min(lately) if up else max(lately)
        early = self._needed[0][0] > begin_ms
        if early or (worst < size.wanted if up else worst > size.wanted):
            what = f"{before} to {size.wanted} of {size.name}, and {worst} were needed meanwhile"
            looks = [(at - self._sim.began_ms, *rest) for at, *rest in self._needed if at >= begin_ms]
            self.fail("flapping", f"{what}: {looks}")

    def _going(self, done: Round, pool: PoolName) -> int:
        return sum(o.verb is Verb.DRAIN_MEMBER and o.pool == pool for o in done.decision.run)

    def _goes(self, operation: Operation, inputs: Inputs, done: Round) -> None:
        """Who is let go, or counts as gone: by what this round could know."""
        member = inputs.desired.members.get(operation.machine_id)
        if member is None:
            return
        observed = inputs.observed
        seen = observed.workers.get(worker_id(member.id, 0))
        at_work = seen is not None and seen.report.status in (WorkerStatus.BUSY, WorkerStatus.DRAINING)
        if operation.verb is Verb.DRAIN_MEMBER and at_work:
            self.fail("idle first", f"{operation.text}, which is at work")
        if operation.verb is Verb.DRAIN_MEMBER:
            of = done.pools[member.pool]
            stay = [m for m in of.members if m.counts and (m.in_ or m.away)]
            if len(stay) - self._going(done, member.pool) < of.wanted:
                self.fail("living stay", f"{operation.text}: of {len(stay)} that are heard or awaited")
        heard = observed.machines.get(member.id)
        fresh = heard is not None and observed.now_ms - heard.seen_ms <= inputs.desired.stale_after_ms / 2
        if operation.verb is not Verb.REMOVE_MEMBER:
            return
        if member.leaving_ms:
            if heard is not None and fresh and heard.report.config_hash != inputs.desired.digests[member.id]:
                self.fail("drained first", f"{operation.text}, and its workers were not told yet")
            return
        if any(i.drift.kind is Kind.POOL_OVER for i in done.items if i.operation == operation.key):
            self.fail("drained first", operation.text)
        pool = observed.pools.get(member.pool)
        boxes = {b.member_id: b for b in pool.boxes or ()} if pool is not None else {}
        box = boxes.get(member.id)
        if pool is None or pool.boxes is None or (box is not None and box.state is not BoxState.ENDED):
            self.fail("gone", f"{operation.text}, and its engine does not say so")
        if fresh:
            self.fail("gone", f"{operation.text}, which is heard")


def _has_workers(host: Host) -> bool:
    """Whether one of its workers runs, and could take a job."""
    running = (ProgramState.RUNNING, ProgramState.STARTING)
    return any(n.startswith("redis-worker-gpu") and p.state in running for n, p in host.programs.items())
