"""What was tried and when, written down beside the reconciler's own memory: backoff and budgets are held to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emp_orch.fleet.drift.kinds import BEHIND, UNHEARD, Desired
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.round import Inputs, Round

BASE_MS, CAP_MS, HEALED_MS = 2_000, 60_000, 60_000
_STARTS = (Verb.START_PROGRAM, Verb.RESTART_PROGRAM)


@dataclass
class Tries:
    """`row`: how many in a row without health between."""

    times_ms: list[int] = field(default_factory=list)
    row: int = 0
    last_ms: int = 0


class Ledger:
    """Times are time itself. After Redis' clock jumped it begins anew: that clock is what pauses are measured by."""

    def __init__(self) -> None:
        self._tries: dict[str, Tries] = {}
        self._told: dict[str, Tries] = {}
        # Of each operation, the last generation that it brought.
        self._brought: dict[str, int] = {}

    def forget(self) -> None:
        self._tries, self._told = {}, {}

    def taken_over(self, key: str) -> None:
        """A configuration that was taken over counts no more."""
        if key.startswith("send-configuration/") and key in self._tries:
            self._tries[key].row = 0

    def tell(self) -> None:
        """What was tried so far is known to whoever leads next."""
        self._told = {k: Tries(list(t.times_ms), t.row, t.last_ms) for k, t in self._tries.items()}

    def take_over(self) -> None:
        """Another leads, who knows what was told."""
        self._tries = {k: Tries(list(t.times_ms), t.row, t.last_ms) for k, t in self._told.items()}

    def begin(self, operation: Operation, now_ms: int, desired: Desired, fail: Callable[[str, str], None]) -> None:
        limits = desired.limits
        tries = self._tries.setdefault(operation.key, Tries())
        if tries.row:
            pause_ms = min(CAP_MS, BASE_MS * 2 ** (tries.row - 1)) * 0.9
            if now_ms - tries.last_ms < pause_ms:
                fail("backoff", f"{operation.text} again after {now_ms - tries.last_ms} ms, try {tries.row + 1}")
        # What a person wanted is no try to repair: the first that brings a generation.
        wanted = operation.brings and self._brought.get(operation.key) != desired.generation
        if operation.brings:
            self._brought[operation.key] = desired.generation
        if not wanted:
            tries.times_ms.append(now_ms)
        tries.last_ms = now_ms
        tries.row += 1
        budget = limits.machine_budget if operation.verb is Verb.RESTART_MACHINE else limits.program_budget
        verbs = _STARTS if operation.verb in _STARTS else (operation.verb,)
        if operation.verb in (*_STARTS, Verb.RESTART_MACHINE):
            _, _, rest = operation.key.partition("/")
            keys = [f"{verb.replace(' ', '-')}/{rest}" for verb in verbs]
            recent = [t for key in keys if key in self._tries for t in self._tries[key].times_ms]
            if sum(now_ms - t < limits.window_ms for t in recent) > budget:
                fail("budget", f"{operation.text}: {len(recent)} tries")

    def look(self, done: Round, now_ms: int) -> None:
        """What this round shows of health."""
        needed = {o.key for o in done.operations}
        for key, tries in self._tries.items():
            healed = key not in needed and now_ms - tries.last_ms >= HEALED_MS
            config_is_there = key.startswith("send-configuration/") and key not in needed
            if healed or config_is_there:
                tries.row = 0

    def free(self, inputs: Inputs, done: Round) -> None:
        """What a person's word or a new generation sets free."""
        for operation in inputs.asked:
            rest = operation.key.partition("/")[2]
            self._free(lambda about, r=rest: about == r or about.startswith(r + "/"))  # type: ignore[misc]
        if inputs.memory.rollout.generation != inputs.desired.generation:
            self._free_configs()
            for item in done.items:
                if item.drift.kind in BEHIND | UNHEARD:
                    self._free(lambda about, m=item.drift.machine_id: about.split("/")[0] == m)  # type: ignore[misc]

    def _free(self, which: Callable[[str], bool]) -> None:
        self._tries = {k: t for k, t in self._tries.items() if not which(k.partition("/")[2])}

    def _free_configs(self) -> None:
        self._tries = {k: t for k, t in self._tries.items() if not k.startswith("send-configuration/")}
