"""Where a ComfyUI reads and writes, by its own command line; where that is relative, by the process that listens there.

Source: cli_args.py, folder_paths.py and main.py of ComfyUI.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from yarl import URL

from emp_orch.comfyui import options
from emp_orch.host.ports import port_holders

BASE = "--base-directory"
MAX_ARGV = 1_000
MAX_PATH = 1_000
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


class Folders(Struct, frozen=True, kw_only=True):
    """Absolute paths on the service's host; empty where they cannot be known."""

    output: str = ""
    temp: str = ""
    input: str = ""

    def of(self, kind: str) -> str:
        """The folder of a file's `type`."""
        return {"output": self.output, "temp": self.temp}.get(kind, "")


def folders_of(argv: Sequence[object], cwd: str) -> Folders:
    """The folders of the ComfyUI that was started with `argv` in `cwd`, which may be unknown ('')."""
    words = [w for w in argv[:MAX_ARGV] if isinstance(w, str)]
    if not words or not words[0]:
        return Folders()
    said, main = _said(words, BASE), _absolute(words[0], cwd)
    base = _absolute(said, cwd) if said else str(Path(os.path.realpath(main)).parent) if main else ""
    output, temp, given = (_said(words, option) for option in (options.OUTPUT, options.TEMP, options.INPUT))
    return Folders(
        output=_absolute(output, cwd) if output else _below(base, "output"),
        temp=_below(_absolute(temp, cwd) if temp else base, "temp"),
        input=_absolute(given, cwd) if given else _below(base, "input"),
    )


def _said(words: Sequence[str], option: str) -> str:
    """The last value of `option`, as argparse takes it."""
    found = ""
    for at, word in enumerate(words):
        if word == option and at + 1 < len(words):
            found = words[at + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _absolute(path: str, cwd: str) -> str:
    if not (cwd or path.startswith("/")) or len(cwd) + len(path) > MAX_PATH or "\0" in path:
        return ""
    return os.path.normpath(Path(cwd, path))


def _below(base: str, name: str) -> str:
    return str(Path(base, name)) if base else ""


def cwd_behind(url: URL) -> str:
    """The working directory of the process of this host that listens at `url`; '' when it cannot be seen. Blocks."""
    if url.host not in _HERE or url.port is None:
        return ""
    holder = port_holders({url.port}).get(url.port)
    try:
        return str(Path(f"/proc/{holder.pid}/cwd").readlink()) if holder is not None and holder.pid else ""
    except OSError:
        return ""
