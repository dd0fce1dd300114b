"""emp.yaml text → a typed, frozen Fleet.

Parses with positions, interpolates, validates; reports every error at once. Never decides what to do about a fleet.
The way in is `load`; the steps are source, interpolate, validate, build, semantic (see load.py).
"""

from emp_orch.manifest.checks.advice import notes, notes_of_shell
from emp_orch.manifest.load import Setting, environment, is_virtual_environment, load, load_stream, load_text, num_gpus
from emp_orch.manifest.text.problems import ConfigError, Problem

__all__ = [
    "ConfigError",
    "Problem",
    "Setting",
    "environment",
    "is_virtual_environment",
    "load",
    "load_stream",
    "load_text",
    "notes",
    "notes_of_shell",
    "num_gpus",
]
