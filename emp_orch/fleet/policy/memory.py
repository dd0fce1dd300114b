"""What the reconciler remembers between rounds: a value. Each transition returns the next one.

It travels in the published status, so that another leader goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct, structs

from emp_orch.fleet.drift.kinds import Drift
from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key
from emp_orch.fleet.pools import memory as of_pools
from emp_orch.fleet.pools.memory import WINDOW_STEPS, PoolMemory

# An operation that was not needed for so long has healed: its backoff begins anew.
RESET_AFTER_MS = 60_000
# How long after its begin the effect of an operation may not show in the machine's report yet.
REPORT_LAG_MS = 2_000
# What is kept of an error: it travels in every status.
ERROR_CHARS = 500


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often an operation was tried in a row, and when within the budget's window.

    `in_flight_since_ms` is None once its outcome is known. `error`: why the last one whose outcome is known failed.
    """

    count: int
    last_ms: int
    in_flight_since_ms: int | None = None
    times_ms: tuple[int, ...] = ()
    error: str = ""


class Onset(Struct, frozen=True, kw_only=True):
    """A drift that stands, since when, and what was last told of it: an operation's key, or why there is none."""

    drift: Drift
    since_ms: int
    told: str = ""


class Breaker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`open_since_ms` None: closed. `forgiven_ms`: failures before it count no more, somebody said so.

    While it is open `width` machines may be tried in each round of `trial`, which began at `trial_ms`.
    """

    open_since_ms: int | None = None
    reason: str = ""
    forgiven_ms: int = 0
    width: int = 1
    trial: tuple[MachineId, ...] = ()
    trial_ms: int = 0


class Rollout(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a generation has come. `pending`: machines that it changes and that are not in order yet; `settling`:
    those that are, since when; `touched`: those that were given it, by whatever way; `done` counts those that came in
    order since something last was pending. `good`: the last generation that was whole. `ill`: those that had failed
    before it came, and are not in order yet.
    """

    generation: int = 0
    progress_ms: int = 0
    pending: frozenset[MachineId] = frozenset()
    touched: frozenset[MachineId] = frozenset()
    settling: dict[MachineId, int] = {}
    done: int = 0
    stalled: bool = False
    good: int = 0
    ill: frozenset[MachineId] = frozenset()


class Memory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`quarantined`: operation keys that are left to a person, and why. `unproven`: machines that were never in order
    since they are desired; None before the first look. `overrides`: the pauses and drains that stood. `busy`: when a
    job was last seen on the service that an operation would restart. `pools`: what is known of their sizes."""

    attempts: dict[str, Attempt] = {}
    onsets: dict[str, Onset] = {}
    quarantined: dict[str, str] = {}
    breaker: Breaker = Breaker()
    rollout: Rollout = Rollout()
    unproven: frozenset[MachineId] | None = None
    overrides: tuple[Override, ...] = ()
    busy: dict[str, int] = {}
    pools: dict[PoolName, PoolMemory] = {}


# Far beyond what a fleet comes to; more was not written by emp, and to reckon with it may take for ever.
MAX_COUNT = 1_000_000


def holds_together(memory: Memory) -> bool:
    """Whether a memory that was read can be reckoned with: keys that name a machine, numbers of things that happen."""
    keys = (*memory.attempts, *memory.quarantined, *memory.busy)
    counts: tuple[int, ...] = (memory.breaker.width, memory.rollout.done, *(a.count for a in memory.attempts.values()))
    counts += tuple(p.size for p in memory.pools.values())
    if any(len(p.up) > WINDOW_STEPS or len(p.down) > WINDOW_STEPS for p in memory.pools.values()):
        return False
    named = all("/" in key for key in keys) and all(key == o.drift.key for key, o in memory.onsets.items())
    return named and all(0 <= n <= MAX_COUNT for n in counts)


# Carried out by the machine's agent, which says when it is done; the others by the reconciler itself.
COMMANDS = (Verb.SEND_CONFIG, Verb.START_PROGRAM, Verb.RESTART_PROGRAM, Verb.STOP_PROGRAM)
_CONFIG_STEM = operation_key(Verb.SEND_CONFIG, MachineId("")) + "/"
# Done, they are not made to wait for the next one of their kind.
_ANEW_STEMS = (_CONFIG_STEM, operation_key(Verb.CREATE_MEMBER, MachineId("")) + "/")
_COMMAND_STEMS = tuple(operation_key(verb, MachineId("")) + "/" for verb in COMMANDS)


def up_to(memory: Memory, now_ms: int) -> Memory:
    """`memory` with no time after `now_ms`: Redis' clock was set back, and what is remembered would wait for it."""

    def past(at_ms: int) -> int:
        return min(at_ms, now_ms)

    attempts = {
        key: a if a.last_ms <= now_ms and (a.in_flight_since_ms or 0) <= now_ms else _attempt_up_to(a, now_ms)
        for key, a in memory.attempts.items()
    }
    onsets = {
        key: o if o.since_ms <= now_ms else structs.replace(o, since_ms=now_ms) for key, o in memory.onsets.items()
    }
    breaker, rollout = memory.breaker, memory.rollout
    opened = breaker.open_since_ms
    breaker = structs.replace(
        breaker,
        open_since_ms=None if opened is None else past(opened),
        forgiven_ms=past(breaker.forgiven_ms),
        trial_ms=past(breaker.trial_ms),
    )
    rollout = structs.replace(
        rollout, progress_ms=past(rollout.progress_ms), settling={i: past(at) for i, at in rollout.settling.items()}
    )
    busy = {key: past(at) for key, at in memory.busy.items()}
    pools = {name: of_pools.up_to(pool, now_ms) for name, pool in memory.pools.items()}
    return structs.replace(
        memory, attempts=attempts, onsets=onsets, breaker=breaker, rollout=rollout, busy=busy, pools=pools
    )


def _attempt_up_to(attempt: Attempt, now_ms: int) -> Attempt:
    in_flight = attempt.in_flight_since_ms
    return structs.replace(
        attempt,
        # Not as just begun: its effect has long shown.
        last_ms=min(attempt.last_ms, now_ms - REPORT_LAG_MS),
        in_flight_since_ms=None if in_flight is None else min(in_flight, now_ms),
        times_ms=tuple(min(at, now_ms) for at in attempt.times_ms),
    )


def tried(memory: Memory, operation: Operation, now_ms: int, window_ms: int, *, counts: bool = True) -> Memory:
    """Memory after `operation` was begun. What a person asked for does not count towards a budget."""
    before = memory.attempts.get(operation.key)
    recent = tuple(t for t in before.times_ms if now_ms - t < window_ms) if before else ()
    attempt = Attempt(
        count=before.count + 1 if before else 1,
        last_ms=now_ms,
        in_flight_since_ms=now_ms,
        times_ms=(*recent, now_ms) if counts else recent,
        error=before.error if before else "",
    )
    return structs.replace(memory, attempts={**memory.attempts, operation.key: attempt})


def ended(memory: Memory, key: str, *, ok: bool, error: str = "") -> Memory:
    """Memory after the outcome of operation `key` is known, or will not be told any more (neither `ok` nor `error`).

    A configuration that was taken over counts no more, nor do members that were asked for: the next one is not made to
    wait for it.
    """
    before = memory.attempts.get(key)
    if before is None:
        return memory
    count = 0 if ok and key.startswith(_ANEW_STEMS) else before.count
    said = "" if ok else error[:ERROR_CHARS] or before.error
    attempt = structs.replace(before, count=count, in_flight_since_ms=None, error=said)
    return structs.replace(memory, attempts={**memory.attempts, key: attempt})


def asked_anew(memory: Memory, wanted: Iterable[MachineId]) -> Memory:
    """Memory after a new generation: configurations may be sent at once, unless one is being taken over. `wanted` are
    machines that it changes or that do not run: what was left to a person there, or waits, is tried again."""
    attempts = {
        k: a for k, a in memory.attempts.items() if a.in_flight_since_ms is not None or not k.startswith(_CONFIG_STEM)
    }
    cleared = structs.replace(memory, attempts=attempts)
    for machine_id in wanted:
        cleared = forgiven(cleared, on_machine(machine_id))
    return cleared


def on_machine(machine_id: MachineId) -> Callable[[str], bool]:
    """Whether an operation's key is one on this machine."""

    def matches(key: str) -> bool:
        return key.split("/", 2)[1] == machine_id

    return matches


def on_program(machine_id: MachineId, program: str) -> Callable[[str], bool]:
    def matches(key: str) -> bool:
        return key.split("/", 2)[1:] == [machine_id, program]

    return matches


def forgiven(memory: Memory, which: Callable[[str], bool]) -> Memory:
    """Memory after a person's word: the operations `which` have neither backoff nor quarantine nor a used-up budget."""
    attempts = {
        k: a if not which(k) else structs.replace(a, times_ms=())
        for k, a in memory.attempts.items()
        if not which(k) or a.in_flight_since_ms is not None
    }
    quarantined = {k: why for k, why in memory.quarantined.items() if not which(k)}
    return structs.replace(memory, attempts=attempts, quarantined=quarantined)


def settled(memory: Memory, needed: frozenset[str], now_ms: int, window_ms: int) -> Memory:
    """Memory after a round that needed the operations `needed`: what has healed for RESET_AFTER_MS begins anew, and
    is forgotten when the budget's window has passed.

    A command that is no longer needed has had its effect, even where its acknowledgement was lost.
    """
    kept: dict[str, Attempt] = {}
    for key, before in memory.attempts.items():
        attempt = before
        if key not in needed:
            if key.startswith(_COMMAND_STEMS):
                attempt = structs.replace(attempt, in_flight_since_ms=None)
            if attempt.in_flight_since_ms is None and now_ms - attempt.last_ms >= RESET_AFTER_MS:
                attempt = structs.replace(attempt, count=0, error="")
                if now_ms - attempt.last_ms >= window_ms:
                    continue
        kept[key] = attempt
    return structs.replace(memory, attempts=kept) if kept != memory.attempts else memory
