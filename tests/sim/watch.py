"""What must never happen, judged at each round and each step on a machine, by the world's truth where that is known.

Each failure names the invariant, as docs/simulation.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.incremental import in_full
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import BOOT_GRACE_MS
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import InstanceState, MachineStatus, WorkerStatus
from emp_orch.fleet.model.overrides import OverrideKind
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, Round, decide
from sim.ledger import Ledger
from sim.redis import SimRedis
from sim.rollouts import RolloutWatch
from support.fleet.world import TICK_MS, TICKS_PER_OFFSET, World

if TYPE_CHECKING:
    from sim.node import Node

# An operation of which nothing was heard for so long, a drain included, is taken for lost.
LOST_MS = 125_000
# A command that arrives is obeyed within this time.
OBEYED_MS = 10_000
_FAILURES = {
    *("machine-missing", "machine-stale", "program-fatal", "program-flapping", "program-unhealthy"),
    *("worker-missing", "worker-stale"),
}


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Out:
    """A machine that emp took from service: for which configuration, and when. `told`: whether another leader knows."""

    machine: DesiredMachine
    at_ms: int
    told: bool = False


class Watch:
    def __init__(self, world: World, redis: SimRedis) -> None:
        self._world = world
        self._redis = redis
        self.log: list[str] = []
        self.rounds = 0
        self.broken = False
        # What was begun, as `restart machine m0`.
        self.begun: list[str] = []
        self.nothing_to_do = False
        self._ledger = Ledger()
        self._leader = ""
        # When Redis' clock or its content was last disturbed: silences count from then on.
        self._shaken_ms = 0
        self._clock_set_ms = 0
        self._deluded: set[MachineId] = set()
        self._seeing_ms: dict[str, int] = {}
        # What each reconciler could not see or hear at its last round, and since when it can again.
        self._sight: dict[str, dict[tuple[MachineId, str], int | None]] = {}
        # Machines that emp took from service and that are not back, and whether its memory of that was told.
        self._out: dict[MachineId, Out] = {}
        # Configurations that were sent to machines which nobody could reach: they wait there.
        self._waiting: dict[MachineId, DesiredMachine] = {}
        # Machines that were in order once with what is desired of them now, by one leader after another.
        self._proven: set[MachineId] = set()
        self._rollout = RolloutWatch(world)
        self._forgiven_ms = 0
        self._digests: dict[MachineId, str] = {}

    def fail(self, invariant: str, what: str) -> None:
        self.broken = True
        raise Broken("\n".join([f"{invariant}: {what}", *self.log[-40:]]))

    # -- what else happens

    def clock_set(self) -> None:
        """A host's clock, or Redis' was set."""
        self._clock_set_ms = self._world.now_ms

    def shaken(self) -> None:
        """Redis' clock was set, or Redis emptied."""
        self._shaken_ms = self._clock_set_ms = self._world.now_ms
        self._ledger.forget()

    def applied(self) -> None:
        """Somebody changed what is desired."""

    def told(self, memory: Memory) -> None:
        for out in self._out.values():
            out.told = True
        self._ledger.tell()
        self._rollout.tell()

    def hears_again(self, machine_id: MachineId) -> None:
        """Old commands are carried out once more: what that takes from service nobody decided."""
        self._deluded.add(machine_id)
        self._rollout.leave_out(machine_id)

    def acknowledged(self, key: str) -> None:
        """An acknowledgement names an operation, not an attempt: a late one is taken for that of the last."""
        self._ledger.taken_over(key)

    def lost_sight(self, who: str) -> None:
        self._seeing_ms.pop(who, None)
        self._sight.pop(who, None)

    def advanced(self) -> None:
        """Who is back in service, or cannot be waited for."""
        self._out = {i: out for i, out in self._out.items() if not self._is_back(i, out)}

    def _is_back(self, machine_id: MachineId, out: Out) -> bool:
        """One that fails or cannot be heard holds up nobody, and what was lost is not waited for."""
        host, passed_ms = self._world.hosts.get(machine_id), self._world.now_ms - out.at_ms
        deluded = machine_id in self._deluded
        unread = self._world.documents.get(machine_id, (None, 0))[0] is None
        if host is None or host.error or host.hung or host.cut or unread or deluded or passed_ms >= LOST_MS:
            return True
        ordered = passed_ms < OBEYED_MS and any(c.verb is Verb.SEND_CONFIG for c in host.orders)
        return host.status is MachineStatus.READY and all(host.up(p) for p in host.machine.programs) and not ordered

    # -- steps on machines

    def acts(self, operation: Operation, epoch: int) -> None:
        """A step of the runtime on a machine."""
        self.log.append(f"   {operation.key} takes a step, epoch {epoch}")
        if operation.machine_id in self._world.foreign:
            self.fail("not ours", operation.text)
        if epoch < self._redis.epoch and self._world.now_ms >= self._redis.broken_until_ms:
            self.fail("old epoch", f"{operation.text}: {epoch} after {self._redis.epoch}")

    def heard(self, machine_id: MachineId, epoch: int, highest: int, *, obeyed: bool) -> None:
        if obeyed and epoch < highest:
            self.fail("old epoch", f"{machine_id} obeyed {epoch} after {highest}")

    # -- rounds

    def judge(self, node: Node, inputs: Inputs, done: Round) -> None:
        """One round, before it acts."""
        self.rounds += 1
        whole, now_ms = node.backend.whole, self._world.now_ms
        # What is begun counts from the look that it answers.
        looked_ms = now_ms - max(0, self._world.redis_ms - inputs.observed.now_ms)
        self._seeing_ms.setdefault(node.backend.who, looked_ms)
        self._sees(node.backend.who, inputs, looked_ms)
        self._take_over(node.backend.who)
        self._same_again(node, inputs, done)
        if self.nothing_to_do and (done.decision.run or done.entries):
            self.fail("idle", f"{done.decision.run} {done.entries}")
        if done.decision.run and (node.backend.led is None or node.reconciler.epoch != node.backend.led):
            self.fail("leader", f"{node.name} acts with {node.reconciler.epoch}, and leads with {node.backend.led}")
        asked = {o.key for o in inputs.asked}
        self._breaker(inputs, done, asked)
        self._ledger.free(inputs, done)
        self._rollout.look(inputs, done, self.fail)
        for operation in done.decision.run:
            self.log.append(f"{inputs.observed.now_ms // 1000} {node.name}: {operation.text}")
            self.begun.append(operation.text.partition("  (")[0])
            by_itself = operation.key not in asked
            if by_itself:
                self._held(operation, inputs, done)
                self._known(operation, inputs)
                self._own_trouble(operation, inputs, done)
                if whole is not None and whole.now_ms == self._world.redis_ms:
                    self._true(operation, node, done, inputs.desired)
            # Who was stopped until the lease was over decides by an old look, and comes to nothing: it is fenced.
            comes_to_something = now_ms < node.backend.deadline_ms
            if not by_itself:
                # Whatever it is out for now, a person wanted it so.
                self._out.pop(operation.machine_id, None)
            elif comes_to_something:
                self._ledger.begin(operation, looked_ms, inputs.desired, self.fail)
                self._disrupts(operation, inputs.desired)
                self._rollout.begin(operation, inputs, self.fail)
        self._idle_first(inputs, done, asked)
        self._ledger.look(done, now_ms)

    def _sees(self, who: str, inputs: Inputs, looked_ms: int) -> None:
        observed, sight = inputs.observed, self._sight.setdefault(who, {})
        for machine_id in inputs.desired.machines:
            instance, heard_ms = observed.instances.get(machine_id), self._world.heard.get(machine_id, 0)
            unknown = instance is not None and instance.state is InstanceState.UNKNOWN
            # By the world's truth, with a second for what was under way at the look.
            unheard = looked_ms - heard_ms > inputs.desired.stale_after_ms + TICK_MS
            for how, out in (("seen", unknown), ("heard", unheard)):
                before = sight.get((machine_id, how), 0)
                if out or before is None:
                    sight[machine_id, how] = None if out else looked_ms

    def _take_over(self, who: str) -> None:
        """A new leader knows what was told and kept; nobody can hold it to the rest."""
        if who == self._leader:
            return
        self._leader = who
        # Nothing was told where Redis forgot it, or where two lead because it forgot who does.
        if self._redis.memory is None or self._world.now_ms < self._redis.broken_until_ms:
            self._ledger.forget()
            self._out.clear()
            self._rollout.forget()
        self._ledger.take_over()
        self._rollout.take_over()
        self._out = {i: out for i, out in self._out.items() if out.told}
        self._proven = set()

    def _same_again(self, node: Node, inputs: Inputs, done: Round) -> None:
        drifts = tuple(item.drift for item in done.items)
        if decide(inputs, drifts) != done:
            self.fail("same again", "the same inputs gave another round")
        whole = node.backend.whole
        if whole is None:
            return
        kept, full = drifts, diff(inputs.desired, whole)
        if self._world.now_ms - self._clock_set_ms <= TICKS_PER_OFFSET * TICK_MS:
            # Until the agents notice that a clock was set, "just started" comes and goes by itself. It does nothing.
            kept, full = _judged(kept), _judged(full)
        if kept != full:
            odd = [(d.key, d.observed, d.cause) for d in {*kept} ^ {*full}]
            self.fail("drift book", f"kept and there is, of which one only: {odd or full}")
        if done.decision.run:
            self._replay(inputs, done)

    def _replay(self, inputs: Inputs, done: Round) -> None:
        """What is recorded of a round that acted gives the same decisions again."""
        recorded = structs.replace(inputs, observed=in_full(inputs.observed, inputs.desired.stale_after_ms))
        replayed = decide(recorded)
        if (replayed.operations, replayed.decision) != (done.operations, done.decision):
            self.fail("replay", f"{[o.text for o in replayed.operations]} after {[o.text for o in done.operations]}")

    def _held(self, operation: Operation, inputs: Inputs, done: Round) -> None:
        """Pauses, quarantine, pruning."""
        for o in inputs.overrides:
            on_all = o.machine_id is None or (o.machine_id == operation.machine_id and o.program is None)
            on_this = o.machine_id == operation.machine_id and o.program is not None
            whole = operation.verb is Verb.RESTART_MACHINE
            if o.kind is OverrideKind.PAUSE and (on_all or (on_this and (whole or o.program == operation.program))):
                self.fail("pause", f"{operation.text} under {o.key}")
        if operation.key in done.memory.quarantined:
            self.fail("quarantine", operation.text)
        wanted = operation.machine_id in inputs.desired.machines
        if operation.verb is Verb.REMOVE_MACHINE and (wanted or not inputs.desired.prune):
            self.fail("prune", operation.text)

    def _known(self, operation: Operation, inputs: Inputs) -> None:
        """Unknown never stops or restarts: by what this round could know."""
        observed, desired = inputs.observed, inputs.desired
        instance = observed.instances.get(operation.machine_id)
        unreadable = {m.id for m in observed.malformed if abs(observed.now_ms - m.seen_ms) <= desired.stale_after_ms}
        if operation.verb in (Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE):
            if instance is not None and instance.state is InstanceState.UNKNOWN:
                self.fail("unknown", operation.text)
            if operation.machine_id in unreadable and operation.machine_id in desired.machines:
                self.fail("unknown", f"{operation.text}, whose report cannot be read")
        if operation.verb is Verb.RESTART_PROGRAM and operation.cause.split()[0] in unreadable:
            self.fail("unknown", f"{operation.text}, whose report cannot be read")

    def _own_trouble(self, operation: Operation, inputs: Inputs, done: Round) -> None:
        """No job of a healthy slot is cut for another's fault, and none that may only keep its service busy."""
        observed, machine = inputs.observed, inputs.desired.machines.get(operation.machine_id)
        kinds = {item.drift.kind for item in done.items if item.operation == operation.key}
        if machine is None or not kinds:
            return
        at_work = {
            w.report.gpu
            for wid in machine.workers
            if (w := observed.workers.get(wid)) is not None
            and w.report.status is WorkerStatus.BUSY
            and abs(observed.now_ms - w.seen_ms) <= inputs.desired.stale_after_ms
        }
        inside = all(str(kind).startswith(("program-", "worker-", "connector-")) for kind in kinds)
        if operation.verb is Verb.RESTART_MACHINE and inside and at_work:
            self.fail("own trouble", f"{operation.text}, with jobs on slots {sorted(at_work)}")
        program = machine.program(operation.program) if operation.program else None
        ill = kinds <= {Kind.PROGRAM_UNHEALTHY, Kind.CONNECTOR_UNHEALTHY}
        if operation.verb is Verb.RESTART_PROGRAM and ill and program is not None and program.slot in at_work:
            self.fail("own trouble", f"{operation.text}, with a job on it")

    def _true(self, operation: Operation, node: Node, done: Round, desired: Desired) -> None:
        """Whether what the operation answers is so: nothing is stopped for a silence that was ours."""
        world = self._world
        host = world.hosts.get(operation.machine_id)
        sight = self._sight[node.backend.who]
        back_ms = [sight.get((operation.machine_id, how)) or 0 for how in ("seen", "heard")]
        from_ms = max(self._shaken_ms, self._seeing_ms[node.backend.who], *back_ms)
        if operation.verb is Verb.START_MACHINE and host is not None:
            self.fail("truth", f"{operation.text}, which runs")
        for item in done.items:
            if item.operation != operation.key or host is None:
                continue
            subject = item.drift.subject
            heard_ms = world.heard.get(subject, 0)
            silent_ms = world.now_ms - max(from_ms, heard_ms)
            if item.drift.kind in (Kind.MACHINE_STALE, Kind.WORKER_STALE) and silent_ms < desired.stale_after_ms:
                self.fail("silence", f"{operation.text} after {silent_ms} ms")
            if item.drift.kind is Kind.MACHINE_STALE and world.now_ms - host.started_ms < BOOT_GRACE_MS:
                self.fail("silence", f"{operation.text}, just started")
            if item.drift.kind is Kind.WORKER_MISSING and heard_ms and silent_ms < desired.stale_after_ms:
                self.fail("silence", f"{operation.text}, heard {silent_ms} ms ago")

    def _disrupts(self, operation: Operation, desired: Desired) -> None:
        """At most max_unavailable machines are taken from service by emp itself at once."""
        machine_id = operation.machine_id
        host, machine = self._world.hosts.get(machine_id), desired.machines.get(machine_id)
        if host is None or machine is None or host.status is not MachineStatus.READY:
            return
        changes = operation.verb is Verb.SEND_CONFIG and host.machine != machine
        if operation.verb is not Verb.RESTART_MACHINE and not changes:
            return
        # What was sent for another generation's sake is that one's.
        self._out = {i: o for i, o in self._out.items() if desired.machines.get(i) == o.machine}
        if machine_id in self._deluded:
            return
        self._out[machine_id] = Out(machine, self._world.now_ms)
        if host.cut:
            self._waiting[machine_id] = machine
        elif self._waiting.pop(machine_id, None) == machine:
            return  # it was sent that before, and takes it now that it can
        if len(self._out) > desired.max_unavailable:
            self.fail("max_unavailable", f"{operation.text}, with {sorted(self._out)} out")

    def _idle_first(self, inputs: Inputs, done: Round, asked: set[str]) -> None:
        """Of two machines, of which one may be disrupted, the one with fewer busy workers is."""
        waiting = [h.operation for h in done.decision.held if h.why.startswith("max_unavailable")]
        for operation in done.decision.run:
            disrupts = operation.verb in (Verb.RESTART_MACHINE, Verb.SEND_CONFIG) and operation.key not in asked
            if disrupts and operation.machine_id in self._out:
                busier = [o for o in waiting if _busy(o, inputs) < _busy(operation, inputs)]
                if busier and not self._out[operation.machine_id].told:
                    self.fail("idle first", f"{operation.text}, and not {busier[0].text}")

    def _breaker(self, inputs: Inputs, done: Round, asked: set[str]) -> None:
        """Where many fail together nothing but trials is begun."""
        desired, now_ms = inputs.desired, inputs.observed.now_ms
        if inputs.closes_breaker:
            self._forgiven_ms = now_ms
        drifting = {item.drift.machine_id for item in done.items}
        changed = {i for i, digest in desired.digests.items() if self._digests.get(i) != digest}
        self._digests = dict(desired.digests)
        self._proven = {i for i in self._proven - changed if i in desired.machines}
        self._proven |= {i for i in desired.machines if i not in drifting}
        # A machine fails once, with the first that fails on it.
        since: dict[MachineId, int] = {}
        for item in done.items:
            if item.drift.kind in _FAILURES and item.drift.machine_id in self._proven:
                machine_id = item.drift.machine_id
                since[machine_id] = min(item.since_ms, since.get(machine_id, now_ms))
        window_ms = desired.limits.breaker_window_ms
        lately = {i for i, at in since.items() if self._forgiven_ms <= at and now_ms - at <= window_ms}
        share = desired.limits.breaker_share
        breaker = done.memory.breaker
        if len(lately) >= max(3, share * len(desired.machines)) and breaker.open_since_ms is None:
            self.fail("breaker", f"{sorted(lately)} failed, and it is closed")
        if breaker.open_since_ms is not None:
            for operation in done.decision.run:
                trial = operation.machine_id in breaker.trial or operation.verb is Verb.FORGET_WORKER
                if operation.key not in asked and not trial:
                    self.fail("breaker", f"{operation.text} while it is open")


def _judged(drifts: tuple[Drift, ...]) -> tuple[Drift, ...]:
    return tuple(d for d in drifts if d.kind is not Kind.WORKER_STARTING)


def _busy(operation: Operation, inputs: Inputs) -> int:
    machine = inputs.desired.machines[operation.machine_id]
    seen = [inputs.observed.workers.get(worker_id(machine.id, slot)) for slot in range(machine.num_gpus)]
    at_work = (WorkerStatus.BUSY, WorkerStatus.DRAINING)
    return sum(w is not None and w.report.status in at_work for w in seen)
