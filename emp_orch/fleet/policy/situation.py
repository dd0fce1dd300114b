"""All that a policy may ask: what is desired, seen, remembered, and what follows for a machine that is away."""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct

from emp_orch.fleet.drift.kinds import Desired, Drift
from emp_orch.fleet.drift.liveness import is_booting, live_report, may_be_alive
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import InstanceState, MachineStatus, Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key
from emp_orch.fleet.policy import rollout
from emp_orch.fleet.policy.memory import COMMANDS, REPORT_LAG_MS, Attempt, Memory

# An operation whose outcome is not known after this time, and its machine's drain, is taken for lost.
IN_FLIGHT_MS = 120_000


class Situation(Struct, frozen=True, kw_only=True, dict=True):
    """All that a policy may ask. `running`: keys of operations that the reconciler itself is at."""

    desired: Desired
    observed: Observed
    drifts: tuple[Drift, ...]
    memory: Memory
    quarantined: dict[str, str]
    overrides: tuple[Override, ...]
    running: frozenset[str]
    jitter: float

    @cached_property
    def away(self) -> frozenset[MachineId]:
        """Desired machines that are not serving because of something emp did, and will be back; and those that are
        back for too short a time to go on with the next.

        One that has settled with an error, that nobody can start, or that is to leave its pool, does not hold up the
        others.
        """
        of_attempts = {MachineId(key.split("/", 2)[1]) for key in self.memory.attempts}
        candidates = {d.machine_id for d in self.drifts} | of_attempts
        settling = self.memory.rollout.settling.keys()
        ours = (i for i in candidates if i in self.desired.machines and not self.desired.is_leaving(i))
        return frozenset(i for i in ours if _is_away(i, self)) | settling

    @cached_property
    def unread(self) -> frozenset[str]:
        """Machines that say something, and nobody can tell what."""
        return frozenset(
            m.id
            for m in self.observed.malformed
            if m.kind == "machine" and may_be_alive(m.seen_ms, MachineId(m.id), self.desired, self.observed)
        )

    @cached_property
    def broken(self) -> list[MachineId]:
        return rollout.broken_by_it(self.memory.rollout, self.drifts)

    @cached_property
    def given(self) -> frozenset[MachineId]:
        """Machines that this generation was given to and that are not in order with it, whatever became of them: for
        its sake no more than max_unavailable are out. What is cut off is not waited for."""
        return frozenset(i for i in rollout.given(self.memory.rollout) if not out_of_sight(i, self))


def under_way(verb: Verb, machine_id: MachineId, s: Situation) -> bool:
    """Whether a whole-machine operation was begun and its outcome is open."""
    key = operation_key(verb, machine_id)
    if key in s.running:
        return True
    attempt = s.memory.attempts.get(key)
    return attempt is not None and is_open(
        attempt, verb, Operation(verb=verb, machine_id=machine_id, cause="", origin=""), s
    )


def is_open(attempt: Attempt | None, verb: Verb, operation: Operation, s: Situation) -> bool:
    """Whether an attempt's outcome is open, and there is still somebody who could carry it out."""
    if attempt is None or attempt.in_flight_since_ms is None:
        return False
    machine = s.desired.machines.get(operation.machine_id)
    drain_ms = int(machine.drain_timeout_s * 1000) if machine else 0
    if s.observed.now_ms - attempt.in_flight_since_ms >= IN_FLIGHT_MS + drain_ms:
        return False
    instance = s.observed.instances.get(operation.machine_id)
    if verb in COMMANDS and instance is not None:
        # A command to a former life of the machine is void.
        gone = instance.state is InstanceState.GONE
        return not gone and instance.started_ms <= attempt.in_flight_since_ms
    return True


def _is_away(machine_id: MachineId, s: Situation) -> bool:
    return (
        _comes_back(machine_id, s)
        or _unfinished(machine_id, s)
        or _touched(Verb.RESTART_MACHINE, machine_id, s)
        or (
            _touched(Verb.SEND_CONFIG, machine_id, s)
            and not has_config(machine_id, s)
            and not out_of_sight(machine_id, s)
        )
    )


def out_of_sight(machine_id: MachineId, s: Situation) -> bool:
    """Whether neither the machine nor its runtime says anything, as when its host is cut off: what it was sent waits
    for it, and nobody waits for it to take that."""
    instance = s.observed.instances.get(machine_id)
    unknown = instance is None or instance.state is InstanceState.UNKNOWN
    return unknown and live_report(s.desired.machines[machine_id], s.desired, s.observed) is None


def _comes_back(machine_id: MachineId, s: Situation) -> bool:
    """Whether the machine is on its way to ready."""
    machine = s.desired.machines[machine_id]
    seen = live_report(machine, s.desired, s.observed)
    if seen is None:
        return is_booting(machine, s.desired, s.observed)
    return seen.report.status is not MachineStatus.READY and not seen.report.error


def _unfinished(machine_id: MachineId, s: Situation) -> bool:
    """Whether the machine was sent this generation and is not in order with it yet, whatever status it tells."""
    if machine_id not in s.memory.rollout.touched or machine_id in s.broken:
        return False
    seen = live_report(s.desired.machines[machine_id], s.desired, s.observed)
    return not seen.report.error if seen is not None else machine_id in s.unread


def _touched(verb: Verb, machine_id: MachineId, s: Situation) -> bool:
    """Whether `verb` on the machine is under way, or so fresh that its report may not show the effect yet."""
    attempt = s.memory.attempts.get(operation_key(verb, machine_id))
    if attempt is None:
        return under_way(verb, machine_id, s)
    return s.observed.now_ms - attempt.last_ms < REPORT_LAG_MS or under_way(verb, machine_id, s)


def has_config(machine_id: MachineId, s: Situation) -> bool:
    seen = s.observed.machines.get(machine_id)
    return seen is not None and seen.report.config_hash == s.desired.digests[machine_id]
