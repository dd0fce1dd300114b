"""Real rounds one after another over one machine, with the journal that they write."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, structs

from emp_orch.fleet.journal.drift_story import DriftStory, drift_story
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.observed import Observed, ProgramReport, ProgramState
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.policy.memory import Memory, ended
from emp_orch.fleet.round import Inputs, Round, decide
from support.fleet.fleets import NOW_MS, SIMULATION, look, one, report, wish

M = one([SIMULATION])

PROGRAM = next(p.name for p in M.programs if p.service == "simulation" and not p.kind.once)

FATAL_KEY = f"program-fatal/m/{PROGRAM}"

START_KEY = f"start-program/m/{PROGRAM}"

OPS = Override(kind=OverrideKind.PAUSE, reason="disk swap", by="ops")


class Note(Struct, frozen=True):
    at_ms: int
    type: str
    data: dict[str, Any]


class World:
    """Rounds one after another, with the journal that they write."""

    def __init__(self) -> None:
        self.journal: list[Note] = []
        self.memory = Memory()
        self.now_ms = NOW_MS
        self.last: Round | None = None

    def round(self, observed: Observed, *overrides: Override, after_ms: int = 0) -> Round:
        self.now_ms += after_ms
        machines = {i: structs.replace(m, seen_ms=self.now_ms) for i, m in observed.machines.items()}
        workers = {i: structs.replace(w, seen_ms=self.now_ms) for i, w in observed.workers.items()}
        seen = structs.replace(observed, now_ms=self.now_ms, machines=machines, workers=workers)
        done = decide(Inputs(desired=wish(M), observed=seen, memory=self.memory, overrides=overrides))
        begun = [
            ("operation_begun", {"operation": o.key, "machine_id": "m", "text": o.text}) for o in done.decision.run
        ]
        self._note([*done.entries, *begun])
        self.memory, self.last = done.memory, done
        return done

    def ends(self, key: str, *, error: str = "", after_ms: int = 0) -> None:
        self.now_ms += after_ms
        self.memory = ended(self.memory, key, ok=not error)
        outcome = {"outcome": "failed", "error": error} if error else {"outcome": "done"}
        self._note([("operation_ended", {"operation": key, "machine_id": "m", **outcome})])

    def _note(self, entries: list[Entry]) -> None:
        self.journal += [Note(self.now_ms, t, d) for t, d in entries]

    def story(self, key: str) -> DriftStory:
        assert self.last is not None
        now = next((i for i in self.last.items if i.drift.key == key), None)
        found = drift_story(key, now, self.journal)
        assert found is not None
        return found

    def types(self) -> list[str]:
        return [n.type for n in self.journal]


def fatal(began_ms: int = NOW_MS - 700) -> Observed:
    programs = {**report(M).report.programs, PROGRAM: ProgramReport(state=ProgramState.FATAL, since_ms=began_ms)}
    return look(M, machines={M.id: report(M, programs=programs)})
