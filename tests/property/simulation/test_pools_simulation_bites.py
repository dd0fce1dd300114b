"""The simulation of pools bites: of each mutant in sim/pools/mutants.py some history ends badly, as the table says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sim.mutants import Mutant
from sim.pools.mutants import MUTANTS
from support.tree import ROOT, TESTS

EMP = ROOT / "emp_orch"
DOCS = ROOT / "docs" / "simulation.md"
# The rarest is found in a third of these.
HISTORIES = 300


@pytest.mark.deep
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_notices_what_pools_lack(mutant: Mutant) -> None:
    argv = [sys.executable, "-m", "sim.pools.mutants", mutant.name, str(HISTORIES)]
    ran = subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("found in history "), ran.stdout
    assert f": {mutant.breaks}: " in ran.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_what_a_mutant_of_pools_takes_away_is_there(mutant: Mutant) -> None:
    for edit in mutant.edits:
        text = (EMP / f"{edit.module.replace('.', '/')}.py").read_text()
        assert edit.applied(text) != text


def test_the_table_of_pools_in_the_docs_is_this_one() -> None:
    rows = [f"| {m.name} | {m.breaks} |" for m in MUTANTS]
    text = DOCS.read_text()
    start = text.index("| broken of pools | breaks |")
    table = text[start:].split("\n\n")[0].splitlines()[2:]
    assert table == rows
