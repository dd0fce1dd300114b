"""What a start of emp must not load: an import that costs more than all of emp's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Grammars and calendars that jsonschema imports where they are installed; emp's schema names no format that needs them.
COSTLY = {"rfc3987_syntax", "lark", "arrow", "isoduration", "pandas", "numpy"}
STARTS = (
    "emp_orch.control.apply.publish",
    "emp_orch.api.app",
    "emp_orch.worker.daemon",
    "emp_orch.machine.agent.agent",
)


@pytest.mark.parametrize("start", STARTS)
def test_no_start_loads_what_costs_more_than_emp(start: str) -> None:
    show = f"import sys, {start}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split()
    assert "emp_orch" in loaded and not COSTLY & set(loaded)
