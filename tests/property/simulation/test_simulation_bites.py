"""The simulation bites: of each broken reconciler in sim/mutants.py some history ends badly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sim.mutants import MUTANTS, Mutant
from support.tree import ROOT, TESTS

EMP = ROOT / "emp_orch"
DOCS = ROOT / "docs" / "simulation.md"
# The rarest is found in a fifth of these.
HISTORIES = 1_000


@pytest.mark.deep
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_notices(mutant: Mutant) -> None:
    argv = [sys.executable, "-m", "sim.mutants", mutant.name, str(HISTORIES)]
    ran = subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("found in history "), ran.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_what_it_takes_away_is_there(mutant: Mutant) -> None:
    for edit in mutant.edits:
        text = (EMP / f"{edit.module.replace('.', '/')}.py").read_text()
        assert edit.applied(text) != text


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = [f"| {m.name} | {m.breaks} |" for m in MUTANTS]
    text = DOCS.read_text()
    start = text.index("| broken | breaks |")
    table = text[start:].split("\n\n")[0].splitlines()[2:]
    assert table == rows
