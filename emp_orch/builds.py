"""Which emp a process runs: digests of the modules that it loaded, to be held against those on the disk.

An upgrade changes the files under what runs. A process goes on with what it has loaded, until it is started again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from emp_orch.resources import MODULES, data_files

# What emp's extension brings into a supervisord (machine/supervision), as paths below the package.
# Only a change in these is worth the restart of a machine; tests/unit/test_builds holds the list against what the
# extension loads.
IN_SUPERVISORD = (
    *("__init__.py", "adopted.py", "builds.py", "environments.py", "errors.py", "isolation.py", "landlock.py"),
    *("lifemark.py", "logmodes.py", "marks.py", "openfiles.py", "plaintext.py", "procident.py", "resources.py"),
    *("render/__init__.py", "render/quoting.py"),
    *("machine/__init__.py", "machine/apart.py", "machine/launch.py"),
    *("machine/supervision/__init__.py", "machine/supervision/due.py"),
    *("machine/supervision/endings.py", "machine/supervision/extension.py", "machine/supervision/family.py"),
    *("machine/supervision/gate.py", "machine/supervision/logs.py", "machine/supervision/peers.py"),
)
# In a supervisord's folder of runtime files: the digest of the extension that it loaded.
LOADED = "supervision"
# The same of all emp that the daemons of a control plane were last started with.
STARTED = "emp"


def supervision_digest(modules: Path = MODULES) -> str:
    """The sha256 of the files that make the extension. Raises OSError."""
    found = hashlib.sha256()
    for name in IN_SUPERVISORD:
        content = (modules / name).read_bytes()
        found.update(f"{name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def leave(run: Path, name: str, digest: str) -> None:
    """Note a digest. Where that cannot be done nobody knows: then it is not told to be another."""
    with suppress(OSError):
        (run / name).write_text(digest)


def left(run: Path, name: str) -> str:
    """What was noted; empty where nothing was."""
    try:
        return (run / name).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def stamp() -> tuple[tuple[str, int, int], ...]:
    """Changes whenever one of emp's files does: cheap to take, where a digest reads them all. Raises OSError."""
    paths = (*MODULES.rglob("*.py"), *data_files().values())
    return tuple(sorted((str(p), s.st_mtime_ns, s.st_size) for p in paths if (s := p.stat())))
