"""A container's volume that an earlier emp wrote: what was emp's own lay among the files of services.

Its secrets go; what a box is known by moves to where services do not reach. All else is fetched anew.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from emp_orch.machine.home.folder import MachineFolder

_MOVED = ("join.json", "box.json")
_SECRET = ("hub_redis_url", "secrets.json", "orders.json", "api.json")
_REST = ("config.json", "agent.json", "env.json", "health", "supervisord.pid", ".supervisord.lock", "supervisor.sock")
_FOLDERS = ("run", "ends", "packages", "warmup")
# By it such a folder is known; it goes last.
_SIGN = "supervisord.conf"


def take_over(folder: MachineFolder) -> None:
    """Once, where `folder` is new and its services' folder is one that was emp's, too. What cannot be done is left."""
    old = folder.services
    if old == folder.root or not (old / _SIGN).is_file() or (folder.root / "config.json").exists():
        return
    for name in _MOVED:
        with suppress(OSError):
            shutil.move(old / name, folder.root / name)
    handed_over = [old.parent / "secrets" / name for name in _SECRET]
    in_use = Path(os.environ.get("EMP_SECRETS", "")).parent
    for path in (
        *(old / name for name in (*_SECRET, *_REST, *_FOLDERS)),
        *(path for path in handed_over if path.parent != in_use),
        old / _SIGN,
    ):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
