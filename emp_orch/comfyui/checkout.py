"""One checkout of ComfyUI on this host: whether it can be started, by which interpreter, and what it understands."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from msgspec import Struct

from emp_orch.comfyui import options
from emp_orch.errors import EmpError

MAIN = "main.py"
OPTIONS = "comfy/cli_args.py"
VERSION = "comfyui_version.py"
VENVS = (".venv", "venv")
# Of a file that is read for a few words in it.
_MAX_BYTES = 1 << 20
_OPTION = re.compile(r"""["'](--[a-z0-9][a-z0-9_-]*)["']""")
_VERSION = re.compile(r"""__version__\s*=\s*["']([0-9A-Za-z.+-]{1,40})["']""")


class Checkout(Struct, frozen=True, kw_only=True):
    """A checkout that can be started. `python` is an absolute path or found on PATH; `version` empty: not known."""

    path: Path
    python: Path
    options: frozenset[str]
    version: str

    @property
    def lacks(self) -> dict[str, str]:
        """The options for isolation that this version does not know, and what that means."""
        return {option: why for option, why in options.LATER.items() if option not in self.options}


class NotUsable(EmpError):
    """A checkout that cannot be started. `key` is the setting to correct, `path` or `python`."""

    def __init__(self, key: str, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.key = key


def look(path: Path, python: str | None) -> Checkout:
    """The checkout at `path`, to be run by `python`, else by its own virtual environment. Raises NotUsable."""
    if not path.is_dir():
        found = "is no folder" if path.exists() else "does not exist"
        raise NotUsable("path", f"{path} {found}", hint="path: the folder that ComfyUI was checked out into")
    missing = [name for name in (MAIN, OPTIONS) if not (path / name).is_file()]
    if missing:
        what = f"{path} is no checkout of ComfyUI: it has no {' and no '.join(missing)}"
        raise NotUsable("path", what, hint=f"path: the folder with ComfyUI's {MAIN}")
    known = frozenset(_OPTION.findall(_text(path / OPTIONS)))
    old = [option for option in options.NEEDED if option not in known]
    if old:
        what = f"the ComfyUI in {path} is too old: {OPTIONS} knows no {' and no '.join(old)}"
        raise NotUsable("path", what, hint="update the checkout, or start it by a command of your own")
    version = _VERSION.search(_text(path / VERSION)) if (path / VERSION).is_file() else None
    return Checkout(
        path=path, python=interpreter(path, python), options=known, version="" if version is None else version[1]
    )


def interpreter(path: Path, python: str | None) -> Path:
    """The Python that runs the checkout. Raises NotUsable, naming what was looked for.

    A virtual environment's own link is returned, not what it leads to: that one knows nothing of the environment.
    """
    looked_for = [path / venv / "bin" / "python" for venv in VENVS] if python is None else [Path(python)]
    if python is not None and "/" not in python:
        found = shutil.which(python, path=foreign_path(os.environ.get("PATH", os.defpath)))
        looked_for = [] if found is None else [Path(found)]
    for candidate in looked_for:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise NotUsable("python", _no_interpreter(path, python, looked_for), hint=_way_out(path, python))


def foreign_path(path: str) -> str:
    """`path` without emp's own virtual environment: a python3 there has nothing that ComfyUI needs."""
    if sys.prefix == sys.base_prefix:
        return path
    own = os.path.realpath(Path(sys.prefix) / "bin")
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if os.path.realpath(folder) != own)


def _no_interpreter(path: Path, python: str | None, looked_for: list[Path]) -> str:
    for candidate in looked_for:
        if candidate.is_symlink() and not candidate.exists():
            # As of an environment that was made on another host, or whose Python was removed since.
            return f"{candidate} leads to {os.path.realpath(candidate)}, which is not here"
        if candidate.exists():
            return f"{candidate} cannot be run"
    if python is not None:
        return f"there is no {python}{'' if '/' in python else ' on the PATH'}"
    return f"{path} has no interpreter of its own: neither {' nor '.join(str(c) for c in looked_for)} is there"


def _way_out(path: Path, python: str | None) -> str:
    if python is not None:
        return "python: the interpreter that ComfyUI was installed for"
    return f"python: the interpreter it was installed for; or make one: python3 -m venv {path / VENVS[0]}"


def _text(path: Path) -> str:
    """The beginning of a file. Raises NotUsable when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="replace")
    except OSError as e:
        raise NotUsable("path", f"cannot read {path}: {e.strerror}", hint="make it readable for this user") from e
