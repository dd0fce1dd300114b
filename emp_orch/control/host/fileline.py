"""The line of emp.yaml that a drift comes from, while it still says what was applied."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from emp_orch import manifest
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.store.fleet.generations import Generation

SHOWN = 100
# Touched by the apply itself, or by clocks that differ a little.
SLACK_MS = 2_000

_ORIGIN = re.compile(r"(?P<file>.+):(?P<line>\d{1,9}):\d{1,9}")
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


def quoted(folder: Path, origin: str, generation: Generation | None, environ: Mapping[str, str] = os.environ) -> str:
    """The text of the line at `origin`; empty when the file is gone, or was edited since `generation` was applied."""
    found = _ORIGIN.fullmatch(origin)
    if found is None or generation is None or Path(found["file"]).name != found["file"]:
        return ""
    path = folder / found["file"]
    try:
        if path.stat().st_mtime * 1000 > generation.at_ms + SLACK_MS:
            return ""
        # Another generation of the same file may be in force: the line must still be about the same things.
        if origin not in _origins(manifest.load(path, environ)) & _origins(generation.fleet):
            return ""
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, EmpError):
        return ""
    number = int(found["line"])
    text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    # A password in a URL is no part of an explanation.
    text = _LOGIN.sub("***@", text)
    return text if len(text) <= SHOWN else text[:SHOWN] + " …"


def _origins(fleet: Fleet) -> set[str]:
    machines = desired_machines(fleet).values()
    return {m.origin for m in machines} | {p.origin for m in machines for p in m.programs}
