"""The wheels that emp needs, for another Python than ours: pip resolves, at the versions that run here.

pip judges markers (`python_version < "3.13"`) by the Python that it runs in. So what a marker left out is fetched as
well where it can be had: a wheel too many does no harm, and the install in the image picks by its own Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from emp_orch.control.images.pack import DISTRIBUTION, requirements
from emp_orch.errors import EmpError

# Older than this no wheel is built for.
OLDEST_GLIBC = 17
DOWNLOAD_S = 900.0
# Markers of what a Python on Linux never needs.
_OTHERS = re.compile(r"""extra\s*==|==\s*["'](win32|Windows|nt|darwin|Darwin|PyPy|emscripten|cygwin)["']""")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Target(Struct, frozen=True, kw_only=True):
    """The Python of a base image: its version, the machine's architecture, and glibc's minor version."""

    major: int
    minor: int
    machine: str
    glibc: int

    def options(self) -> list[str]:
        """pip's, to get wheels that fit it."""
        version = f"{self.major}{self.minor}"
        platforms = [f"manylinux_2_{n}_{self.machine}" for n in range(self.glibc, OLDEST_GLIBC - 1, -1)]
        platforms += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        options = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version]
        for abi in (f"cp{version}", "abi3", "none"):
            options += ["--abi", abi]
        for platform in platforms:
            options += ["--platform", platform]
        return options


def pinned() -> dict[str, str]:
    """Every distribution here with its version, names as the index has them: what runs here is what the image gets."""
    found = {_canonical(d.metadata["Name"]): d.version for d in metadata.distributions() if d.metadata["Name"]}
    for name in (DISTRIBUTION, "pip"):
        found.pop(name, None)
    return dict(sorted(found.items()))


def gather(folder: Path, target: Target, versions: Mapping[str, str], extra: Sequence[str] = ()) -> None:
    """Put all that emp and `extra` need on `target` into `folder`. Raises EmpError."""
    constraints = folder.parent / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
    # The image installs with the pip that runs here: its own may be old, or missing.
    what = [*_bare(requirements()), "pip", *extra]
    _pip(folder, target, ["--constraint", str(constraints), *what])
    tried: set[str] = set()
    while missing := sorted(set(_left_out(folder)) - tried):
        tried |= set(missing)
        if not _gets(folder, target, missing):
            for requirement in missing:
                _gets(folder, target, [requirement])  # what is for an older Python, and needed, the build names


def _gets(folder: Path, target: Target, what: list[str]) -> bool:
    try:
        _pip(folder, target, ["--no-deps", *what])
    except EmpError:
        return False
    return True


def _bare(lines: list[str]) -> list[str]:
    """Requirements without their markers."""
    return [line.partition(";")[0].strip() for line in lines]


def _left_out(folder: Path) -> Iterator[str]:
    """What wheels in `folder` may need and it does not hold."""
    wheels = sorted(folder.glob("*.whl"))
    there = {_canonical(wheel.name.partition("-")[0]) for wheel in wheels}
    for wheel in wheels:
        for line in _requires(wheel):
            name = _NAME.match(line)
            if not _OTHERS.search(line) and name is not None and _canonical(name[0]) not in there:
                (requirement,) = _bare([line])
                yield requirement


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (n for n in opened.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        head = opened.read(name).decode(errors="replace").partition("\n\n")[0]
    return [line.partition(":")[2].strip() for line in head.splitlines() if line.startswith("Requires-Dist:")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(folder: Path, target: Target, what: list[str]) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download"]
    argv += ["--dest", str(folder), *target.options(), *what]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired:
        raise EmpError("pip did not get the wheels in time", hint="check the way to the package index") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no reason")
        hint = "check the way to the package index, or choose a base with the Python that emp runs in"
        raise EmpError(f"pip cannot get the wheels for Python {target.major}.{target.minor}: {why}", hint=hint)
