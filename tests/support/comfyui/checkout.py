"""A checkout of ComfyUI as far as emp looks at one; its main.py leaves its words for the test, or is emp's own twin."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable
from pathlib import Path

OLD = ("--listen", "--port", "--output-directory", "--temp-directory", "--input-directory")
ALL = (*OLD, "--user-directory", "--database-url", "--extra-model-paths-config", "--cpu")

# The twin, which takes ComfyUI's own command line and nothing else.
TWIN = "from emp_orch.services.simulation.checkout import main\n\nmain()\n"
_LEAVES_ITS_WORDS = """
import json, os, pathlib, sys
pathlib.Path("argv.json").write_text(json.dumps({"argv": sys.argv, "pid": os.getpid(), "env": dict(os.environ)}))
"""


def make_checkout(
    root: Path, *, options: Iterable[str] = ALL, main: str = _LEAVES_ITS_WORDS, venv: str | None = ".venv"
) -> Path:
    """A checkout at `root`. Its interpreter is a script, so that it has this one's modules without being it."""
    (root / "comfy").mkdir(parents=True)
    (root / "models" / "checkpoints").mkdir(parents=True)
    (root / "main.py").write_text(main)
    (root / "comfyui_version.py").write_text('__version__ = "0.3.64"\n')
    lines = [f'parser.add_argument("{option}", type=str)\n' for option in options]
    (root / "comfy" / "cli_args.py").write_text("".join(lines))
    if venv is not None:
        make_python(root / venv / "bin" / "python")
    return root


def make_python(file: Path) -> Path:
    file.parent.mkdir(parents=True)
    file.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file
