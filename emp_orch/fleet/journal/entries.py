"""What a round adds to the journal: drift opened and closed, what was decided, breaker, rollout, what people said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from emp_orch.fleet.drift.kinds import Drift
from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.policy.holds import Decision
from emp_orch.fleet.policy.memory import Memory, Onset
from emp_orch.fleet.pools.memory import PoolMemory
from emp_orch.fleet.pools.size import PoolSize

Entry = tuple[str, dict[str, Any]]

# Stands for "it runs now" where an operation is not held.
RUN = "run"


def onsets(drifts: tuple[Drift, ...], before: dict[str, Onset], now_ms: int) -> tuple[dict[str, Onset], list[Entry]]:
    """Since when each drift stands, and entries for what opened and what closed."""
    now: dict[str, Onset] = {}
    entries: list[Entry] = []
    for drift in drifts:
        known = before.get(drift.key)
        if known is None:
            late_ms = None if drift.began_ms is None else max(0, now_ms - drift.began_ms)
            entries.append(("drift_opened", {**tell(drift), "detected_after_ms": late_ms}))
        since_ms, told = (known.since_ms, known.told) if known else (now_ms, "")
        now[drift.key] = Onset(drift=drift, since_ms=since_ms, told=told)
    for key, onset in before.items():
        if key not in now:
            entries.append(("drift_closed", {**tell(onset.drift), "healed_after_ms": now_ms - onset.since_ms}))
    return now, entries


def decided(
    onsets_now: dict[str, Onset], actions: dict[str, str], decision: Decision
) -> tuple[dict[str, Onset], list[Entry]]:
    """Entries for decisions that differ from what was told of a drift last. `actions`: drift → operation, by key."""
    held = {h.operation.key: h for h in decision.held}
    run = {o.key for o in decision.run}
    told_now: dict[str, Onset] = {}
    entries: list[Entry] = []
    for key, onset in onsets_now.items():
        action = actions.get(key, "")
        hold = held.get(action)
        told = RUN if action in run else (hold.why if hold else "")
        if told and told != onset.told and told != "under way":
            entries.append(
                (
                    "decision",
                    {
                        "key": key,
                        "machine_id": onset.drift.machine_id,
                        "operation": action,
                        "decision": told,
                        "next_ms": hold.next_ms if hold else None,
                    },
                )
            )
            told_now[key] = structs.replace(onset, told=told)
        else:
            told_now[key] = onset
    return told_now, entries


def policy_entries(before: Memory, after: Memory) -> list[Entry]:
    """Entries for the breaker, the rollout and the quarantine."""
    entries: list[Entry] = []
    was, now = before.breaker, after.breaker
    if was.open_since_ms is None and now.open_since_ms is not None:
        entries.append(("breaker_opened", {"reason": now.reason}))
    elif was.open_since_ms is not None and now.open_since_ms is None:
        entries.append(("breaker_closed", {"reason": was.reason}))
    elif now.trial != was.trial and now.trial:
        entries.append(("breaker_trial", {"machines": list(now.trial)}))
    if after.rollout.stalled and not before.rollout.stalled:
        waiting = sorted(after.rollout.pending)[:10]
        entries.append(("rollout_stalled", {"generation": after.rollout.generation, "machines": waiting}))
    left, freed = after.quarantined, before.quarantined
    entries += [("quarantined", {"operation": k, "reason": left[k]}) for k in sorted(left.keys() - freed.keys())]
    entries += [("released", {"operation": k}) for k in sorted(freed.keys() - left.keys())]
    return entries + _words(before.overrides, after.overrides)


def resized(before: Mapping[PoolName, PoolMemory], sizes: Mapping[PoolName, PoolSize]) -> list[Entry]:
    """Entries for pools whose size is another than it was."""
    return [
        ("pool_resized", {"pool": name, "from": was, "to": size.wanted, "reason": size.why})
        for name, size in sizes.items()
        if (was := before[name].size if name in before else None) != size.wanted
    ]


def _words(before: tuple[Override, ...], after: tuple[Override, ...]) -> list[Entry]:
    """Entries for what people said: pauses and drains that began, changed or were lifted."""
    said = [(_BEGAN[o.kind], o) for o in after if o not in before]
    lifted = [(_LIFTED[o.kind], o) for o in before if o.key not in {a.key for a in after}]
    return [
        (type_, {"machine_id": o.machine_id or "", "scope": o.scope, "reason": o.reason, "by": o.by, **_sized(o)})
        for type_, o in (*said, *lifted)
    ]


def _sized(order: Override) -> dict[str, int]:
    return {"size": order.size} if order.kind is OverrideKind.SCALE else {}


_BEGAN = {OverrideKind.PAUSE: "paused", OverrideKind.DRAIN: "drained", OverrideKind.SCALE: "scaled"}
_LIFTED = {
    OverrideKind.PAUSE: "pause_lifted",
    OverrideKind.DRAIN: "drain_lifted",
    OverrideKind.SCALE: "scale_lifted",
}


def tell(drift: Drift) -> dict[str, Any]:
    return {
        "key": drift.key,
        "kind": drift.kind,
        "machine_id": drift.machine_id,
        "subject": drift.subject,
        "desired": drift.desired,
        "observed": drift.observed,
        "cause": drift.cause,
        "origin": drift.origin,
    }


# -- reading it again: an entry may have been written by another version, so that nothing of it is sure


TYPES = (
    *("drift_opened", "decision", "operation_begun", "operation_sent", "operation_ended", "drift_closed"),
    *("quarantined", "released", "breaker_opened", "breaker_trial", "breaker_closed", "rollout_stalled", "rolled_back"),
    *("paused", "pause_lifted", "drained", "drain_lifted", "scaled", "scale_lifted"),
    *("pool_resized", "member_asked", "member_joined", "preempted", "member_removed", "member_forgotten"),
    *("jobs_lost", "jobs_put_back", "redis_evicted", "redis_replicas", "redis_repaired"),
)


def said(data: dict[str, Any], field: str) -> str:
    """A text of an entry; empty when it has none."""
    found = data.get(field)
    return found if isinstance(found, str) else ""


def number(data: dict[str, Any], field: str) -> int | None:
    found = data.get(field)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def pool_of(data: dict[str, Any]) -> str:
    """The pool that an entry is about; empty when it is about none."""
    return said(data, "pool") or (said(data, "scope") if "size" in data else "")


def kind_of(data: dict[str, Any]) -> str:
    """The kind of the drift that an entry is about; empty when it is about none."""
    return said(data, "kind") or said(data, "key").partition("/")[0]


def machine_of(data: dict[str, Any]) -> str:
    """The machine that an entry is about; empty when it is about the fleet."""
    return said(data, "machine_id") or [*said(data, "operation").split("/"), ""][1]


def subject_of(data: dict[str, Any]) -> str:
    """The machine, program or worker that an entry is about."""
    if found := said(data, "subject"):
        return found
    for field in ("key", "operation"):
        if len(parts := said(data, field).split("/", 2)) == 3:
            return parts[2]
    return machine_of(data)


def concerns(data: dict[str, Any], machine_id: str, subject: str = "") -> bool:
    """Whether an entry is about `machine_id` (empty: any) and, of it, `subject` (empty: any)."""
    machines = data.get("machines")
    named = isinstance(machines, list) and machine_id in machines
    if machine_id and machine_of(data) != machine_id and not named:
        return False
    return not subject or subject_of(data) == subject
