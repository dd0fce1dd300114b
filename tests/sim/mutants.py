"""Broken reconcilers: one promise of fleet/ or control/ taken away each; the simulation must notice.

`python -m sim.mutants NAME HISTORIES` (from tests/) runs histories on that one, and prints how the first ended badly.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Edit(NamedTuple):
    """In `module` of emp_orch, `old`, which stands there once, becomes `new`."""

    module: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """`text` with the edit, LookupError if `old` does not stand there once."""
        if text.count(self.old) != 1:
            raise LookupError(f"{self.module} has {text.count(self.old)} times {self.old!r}")
        return text.replace(self.old, self.new)


class Mutant(NamedTuple):
    """`breaks` names the invariant that it breaks, as docs/simulation.md lists them."""

    name: str
    breaks: str
    edits: tuple[Edit, ...]


def _one(name: str, breaks: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(name, breaks, (Edit(module, old, new),))


_GONE = "if instance is not None and instance.state is InstanceState.GONE:"
MUTANTS = (
    _one("agents obey any epoch", "old epoch", "machine.home.trust", "if found.stamp <= lowest:", "if False:"),
    _one(
        *("acts without the lease", "leader", "control.reconciler.rounds"),
        *("self._asked.clear()  # what was asked is the leader's to answer", "mandate = self._mandate"),
    ),
    _one("pauses are not asked", "pause", "fleet.policy.policies", "    _paused,\n", ""),
    _one("the breaker is not asked", "breaker", "fleet.policy.policies", "    _broken_circuit,\n", ""),
    _one(
        "the breaker never opens",
        "breaker",
        "fleet.policy.breaker",
        "if len(lately) < threshold(desired, count):",
        "if True:",
    ),
    _one("quarantine is not asked", "quarantine", "fleet.policy.policies", "    _quarantined,\n", ""),
    _one(
        "no budget of a program",
        "budget",
        "fleet.policy.budget",
        "tries < (ONCE if late else limits.program_budget)",
        "True",
    ),
    _one("no budget of a machine", "budget", "fleet.policy.budget", "restarts >= limits.machine_budget", "False"),
    _one(
        *("a slot's trouble is its machine's", "own trouble", "fleet.drift.slots"),
        *("if worker.status in AT_WORK:\n        return True", "if True:\n        return False"),
    ),
    _one("no job is waited for", "own trouble", "fleet.policy.policies", "    _at_a_job,\n", ""),
    _one("no backoff", "backoff", "fleet.policy.policies", "    _backing_off,\n", ""),
    _one("backoff does not double", "backoff", "fleet.policy.policies", "2 ** (max(1, count) - 1)", "1"),
    _one(
        "backoff is forgotten at once",
        "backoff",
        "fleet.policy.memory",
        "RESET_AFTER_MS = 60_000",
        "RESET_AFTER_MS = 0",
    ),
    _one(
        *("a new leader remembers nothing", "backoff", "control.reconciler.rounds"),
        *("await self._backend.memory() or self._memory", "Memory()"),
    ),
    _one(
        *("any number may be out", "max_unavailable", "fleet.policy.gate"),
        *("if len(out) < most:", "if True:"),
    ),
    _one("configurations are nobody's", "rollout", "fleet.drift.kinds", "*(Kind.CONFIG_BEHIND, ", "*("),
    _one(
        "new containers are nobody's",
        "rollout",
        "fleet.drift.kinds",
        "Kind.CONTAINER_OUTDATED, Kind.WORKER",
        "Kind.WORKER",
    ),
    _one("packages are nobody's", "rollout", "fleet.drift.kinds", ", Kind.WORKER_OUTDATED),", "),"),
    _one(
        *("restarts are nobody's", "rollout", "fleet.policy.rollout"),
        *("(Verb.START_MACHINE, Verb.RESTART_MACHINE)", "()"),
    ),
    _one(
        *("whom a generation broke is not out", "rollout", "fleet.policy.rollout"),
        *("return rollout.touched - rollout.ill", "return frozenset()"),
    ),
    Mutant(
        "what is wanted is a try",
        "wanted",
        (
            Edit("fleet.policy.budget", "if not is_wanted(o, memory.rollout)}", "}"),
            Edit("fleet.round", "asked_anew(memory, changed | ", "asked_anew(memory, set() and "),
        ),
    ),
    _one(
        *("what says nothing is not compared", "converges", "fleet.drift.table"),
        *("told = now is not None or _had_its_time(instance, machine, desired, observed)", "told = now is not None"),
    ),
    _one(
        *("busy ones first", "idle first", "fleet.policy.gate"),
        *("key=lambda o: (_busy(o, situation), ", "key=lambda o: (-_busy(o, situation), "),
    ),
    Mutant(
        "unknown is absent",
        "truth",
        (
            Edit(
                "fleet.drift.table", _GONE, "if instance is not None and instance.state is not InstanceState.RUNNING:"
            ),
            Edit("fleet.policy.policies", "    _unknown,\n", ""),
        ),
    ),
    _one("what is unknown is restarted", "unknown", "fleet.policy.policies", "    _unknown,\n", ""),
    _one(
        *("what cannot be read is silent", "unknown", "fleet.drift.table"),
        *("if not gone and seen_ms is not None and may_be_alive(seen_ms, machine.id, desired, observed):", "if False:"),
    ),
    _one(
        *("an outage is silence", "silence", "control.reconciler.observe"),
        *('only be silent to us."""\n        self._since_ms = None', 'only be silent to us."""'),
    ),
    _one(
        "an emptied Redis is silence",
        "silence",
        "control.reconciler.observe",
        "if began_anew(self._seq, seq):",
        "if False:",
    ),
    _one("a clock that was set is silence", "silence", "control.reconciler.observe", " or self._jumped(now_ms)", ""),
    _one(
        *("who was out of sight was silent", "silence", "fleet.drift.liveness"),
        *("dict.fromkeys(back, now_ms)", "{}"),
    ),
    _one(
        *("what was not read again is silent", "silence", "control.reconciler.observe"),
        *("self._last if desired is self._desired else None", "self._last"),
    ),
    _one(
        *("no time to boot", "silence", "fleet.drift.liveness"),
        *("return observed.now_ms - instance.started_ms < BOOT_GRACE_MS", "return False"),
    ),
    _one("a clock set back is waited for", "converges", "fleet.round", "up_to(inputs.memory, now_ms)", "inputs.memory"),
    _one(
        *("removes unasked", "prune", "fleet.plan.operations"),
        *("if drift.kind is Kind.MACHINE_SURPLUS and desired.prune:", "if drift.kind is Kind.MACHINE_SURPLUS:"),
    ),
    _one("drift is not looked at again", "drift book", "fleet.drift.incremental", ", *self._drifts,", ","),
    _one(
        "changed workers are not looked at",
        "drift book",
        "fleet.drift.incremental",
        " *map(machine_of, changed.workers),",
        "",
    ),
    _one(
        *("records what it did not read", "replay", "fleet.drift.incremental"),
        *("    if changed is None:\n        return observed\n    at_least", "    return observed\n    at_least"),
    ),
    _one(
        "those who ask are left without an answer",
        "converges",
        "control.reconciler.rounds",
        "await self._give_up(now_ms)",
        "pass",
    ),
)
BY_NAME = {m.name: m for m in MUTANTS}


class Mutating(importlib.abc.SourceLoader):
    """Loads one module of emp_orch with its edits."""

    def __init__(self, path: str, edits: Sequence[Edit]) -> None:
        self._path = path
        self._edits = edits

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        text = Path(path).read_text()
        for edit in self._edits:
            text = edit.applied(text)
        return text.encode()

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("never from a cache")

    def set_data(self, path: str, data: bytes, *, _mode: int = 0o666) -> None: ...


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edits: tuple[Edit, ...]) -> None:
        self._edits = edits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        edits = [e for e in self._edits if fullname == f"emp_orch.{e.module}"]
        if not edits:
            return None
        sys.meta_path.remove(self)
        found = find_spec(fullname)
        sys.meta_path.insert(0, self)
        assert found is not None and found.origin is not None
        found.loader = Mutating(found.origin, edits)
        return found


def run(mutant: Mutant, dice: str, histories: int) -> None:
    """Live through histories of the module `dice` on a mutant until one ends badly."""
    sys.meta_path.insert(0, Finder(mutant.edits))
    history = importlib.import_module(dice).history
    for seed in range(histories):
        try:
            history(seed)
        except AssertionError as e:
            print(f"found in history {seed}: {str(e).splitlines()[0][:200]}")
            return
    print(f"not found in {histories} histories")


if __name__ == "__main__":
    run(BY_NAME[sys.argv[1]], "sim.dice", int(sys.argv[2]))
