"""What a round adds to the journal: drift opened and closed, what was decided, the breaker, the rollout."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from emp_orch.fleet.kinds import Drift
from emp_orch.fleet.memory import Memory, Onset
from emp_orch.fleet.policy import Decision

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


def standing(before: Memory, after: Memory) -> list[Entry]:
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
    return entries


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
