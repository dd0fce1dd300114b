"""What the reconciler remembers between ticks: attempts, and since when each drift stands.

Kept in the last published status, so that a restarted reconciler goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emp_orch.fleet.drift import Drift
from emp_orch.fleet.plan import Operation
from emp_orch.fleet.policy import Attempt, asked_anew, ended, settled, tried
from emp_orch.store.status import DriftStatus, FleetStatus

Entry = tuple[str, dict[str, Any]]


class Recollection:
    """Mutable, owned by one reconciler. Times are ms of Redis TIME."""

    def __init__(self, under_way: Mapping[str, Attempt] | None = None) -> None:
        self.attempts: dict[str, Attempt] = dict(under_way or {})
        self._since: dict[str, int] = {}
        self._open: dict[str, Drift] = {}
        self._generation = 0

    def of(self, keys: Iterable[str]) -> dict[str, Attempt]:
        """The attempts at the operations `keys`."""
        return {key: self.attempts[key] for key in keys if key in self.attempts}

    def resume(self, status: FleetStatus | None) -> None:
        """Take over from the status of a former reconciler: onsets and attempts, nothing in flight."""
        for item in status.drift if status else ():
            self._since[item.drift.key] = item.since_ms
            self._open[item.drift.key] = item.drift
            known = item.operation in self.attempts
            if item.operation and not known and item.attempts and item.last_attempt_ms is not None:
                self.attempts[item.operation] = Attempt(
                    count=item.attempts, last_ms=item.last_attempt_ms, in_flight_since_ms=None
                )

    def since_ms(self, drift: Drift) -> int:
        return self._since[drift.key]

    def observe(self, drifts: tuple[Drift, ...], now_ms: int) -> list[Entry]:
        """Take in a tick's drift; returns journal entries for what opened and what closed."""
        now_open = {d.key: d for d in drifts}
        entries: list[Entry] = []
        for key, drift in now_open.items():
            if key not in self._since:
                self._since[key] = now_ms
                entries.append(("drift_opened", _tell(drift)))
        for key in [k for k in self._since if k not in now_open]:
            since_ms = self._since.pop(key)
            gone = self._open.get(key)
            detail = _tell(gone) if gone else {"key": key}
            entries.append(("drift_closed", {**detail, "healed_after_ms": now_ms - since_ms}))
        self._open = now_open
        return entries

    def began(self, operation: Operation, now_ms: int) -> None:
        self.attempts = tried(self.attempts, operation, now_ms)

    def follow(self, generation: int) -> None:
        """A new generation asks for new things: what failed for the last one is no reason to wait."""
        if generation != self._generation:
            self._generation = generation
            self.attempts = asked_anew(self.attempts)

    def ended(self, key: str, *, ok: bool) -> None:
        self.attempts = ended(self.attempts, key, ok=ok)

    def forget_settled(self, operations: tuple[Operation, ...], now_ms: int) -> None:
        self.attempts = settled(self.attempts, operations, now_ms)

    def status_of(self, drift: Drift, operation: Operation | None, told: tuple[str, str, int | None]) -> DriftStatus:
        action, held, next_ms = told
        attempt = self.attempts.get(operation.key) if operation else None
        return DriftStatus(
            drift=drift,
            since_ms=self.since_ms(drift),
            action=action,
            operation=operation.key if operation else "",
            attempts=attempt.count if attempt else 0,
            last_attempt_ms=attempt.last_ms if attempt else None,
            next_attempt_ms=next_ms,
            held=held,
        )


def _tell(drift: Drift) -> dict[str, Any]:
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
