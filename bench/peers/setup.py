"""`python -m bench.peers.setup`: install the peers, each apart, into the bench's cache folder.

The folder is $EMP_BENCH_CACHE, by default .bench here. What is there in the pinned version is left as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers.pins import NODE, PYTHON

INSTALL_S = 600


class CannotInstall(Exception):
    """A peer that is not there and could not be installed; the text says why."""


def cache_folder() -> Path:
    return Path(os.environ.get("EMP_BENCH_CACHE", ".bench")).resolve()


def folder(cache: Path, peer: str) -> Path:
    return cache / peer


def _run(argv: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise CannotInstall(str(e)) from e
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise CannotInstall(f"{argv[0]}: {' · '.join(lines[-3:])}")


def _python(home: Path, pins: tuple[str, ...]) -> None:
    _run([sys.executable, "-m", "venv", str(home)], home.parent)
    _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *pins], home.parent)


def _node(home: Path, pins: tuple[str, ...]) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise CannotInstall("node and npm are not installed")
    home.mkdir()
    (home / "package.json").write_text('{"private": true}\n')
    _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *pins], home)


def ensure(cache: Path, peer: str) -> None:
    """Have `peer` in its pinned version. Raises CannotInstall."""
    pins = PYTHON.get(peer) or NODE[peer]
    home = folder(cache, peer)
    stamp = home / "installed.txt"
    wanted = "\n".join(pins)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    if peer in PYTHON:
        _python(home, pins)
    else:
        _node(home, pins)
    stamp.write_text(wanted)


def main() -> int:
    failed = 0
    for peer in [*PYTHON, *NODE]:
        try:
            ensure(cache_folder(), peer)
            print(f"{peer}: ready")
        except CannotInstall as e:
            print(f"{peer}: cannot be installed: {e}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
