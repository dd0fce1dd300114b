"""Where a machine reports, with its login: in a 0600 file. Environments are shown to whoever may look at a container,
and are inherited by every program; they hold the same URL without login.
"""

from __future__ import annotations

import os
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.runtimes.keys.logins import REDIS_FILE, URL_FILE


def given_url() -> str:
    """What a machine is given by who starts it: the content of the file of HUB_REDIS_URL_FILE, else HUB_REDIS_URL.

    Raises EmpError, which never quotes the file.
    """
    path = os.environ.get(URL_FILE)
    return _read(Path(path)) if path else os.environ.get("HUB_REDIS_URL") or os.environ.get("REDIS_URL", "")


def own_url() -> str:
    """What a machine's agent and workers use: also where its supervisord is of an emp that named no file yet."""
    home = os.environ.get("EMP_MACHINE_DIR")
    kept = Path(home) / REDIS_FILE if home and not os.environ.get(URL_FILE) else None
    return _read(kept) if kept is not None and kept.is_file() else given_url()


def _read(path: Path) -> str:
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not text"
        raise EmpError(
            f"cannot read {path}, which {URL_FILE} names: {why}", hint="mount the file, readable by the machine's user"
        ) from None
    if len(lines) != 1:
        raise EmpError(f"{path}, which {URL_FILE} names, has not exactly one line", hint="write the Redis URL into it")
    return lines[0]
