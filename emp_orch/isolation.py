"""emp's own processes run on emp's own modules, whatever the user's Python is told: stdlib only, cheap to import.

A `redis.py`, `email.py` or `supervisor.py` in the folder, or in one that PYTHONPATH names, is somebody else's. Services
are started with the user's environment as it is.
"""

from __future__ import annotations

import os
import sys

# No PYTHON* variable counts, and the current folder holds no modules. Not -I: emp may be installed for one user only.
FLAGS = ("-E", "-P")
# What PYTHONPATH was before a worker package took its place.
USERS_PATH = "EMP_USERS_PYTHONPATH"


def python(*words: str) -> list[str]:
    """The command line of this interpreter with `words`, for a process of emp's own."""
    return [sys.executable, *FLAGS, *words]


def led_by(path: str, env: dict[str, str]) -> dict[str, str]:
    """`env` for `python -P`: the modules below `path` come first, and those that PYTHONPATH names are found last."""
    bare = {name: value for name, value in env.items() if not name.startswith("PYTHON")}
    return {**bare, "PYTHONPATH": path, USERS_PATH: env.get("PYTHONPATH", "")}


def settle() -> None:
    """Modules that PYTHONPATH names are found last: connectors may be there. In the current folder there are none."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    named = os.pathsep.join((os.environ.get("PYTHONPATH", ""), os.environ.get(USERS_PATH, ""))).split(os.pathsep)
    last = [path for path in dict.fromkeys(map(os.path.abspath, filter(None, named))) if path != own]
    aside = {*last, _here()} - {own}
    sys.path[:] = [*(path for path in sys.path if path and os.path.abspath(path) not in aside), *last]


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return ""
