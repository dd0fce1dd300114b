"""`provider_options` of the `slurm` provider; docs/pools-slurm.md describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from emp_orch.options.base import WrongOption, only
from emp_orch.units import seconds

SLURM = "slurm"
WHAT_OF = "provider_options of the {} provider"

_DEFAULT_TIME_S = 4 * 3600.0
_TIMES_S = (120.0, 365 * 86_400.0)
_MAX_LINES = 100
_MAX_CHARS = 4096
_WORD = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")
_NAMES = ("partition", "account", "qos", "gres", "constraint", "memory")
# emp finds and ends its jobs by these: another's value would part them from it.
_OWN = ("job-name", "export", "export-file", "parsable", "signal", "array", "wrap", "dependency", "clusters", "uid")
_SHORT = ("-J", "-a", "-d", "-M")

_wrong = partial(WrongOption, SLURM, what_of=WHAT_OF)


class Options(Struct, frozen=True, kw_only=True):
    """`partition` to `memory`, `cpus`: sbatch's options of these names, empty and 0: not given. `gres` empty: the
    pool's GPUs. `time_s`: how long a box may live. `apptainer`, `pyxis`: an image to run in, of one of them. `venv`,
    `python`: what runs emp on the node, both empty: `emp` of its PATH. `folder` and `output` are paths on the node,
    `conf` is slurm.conf on the control plane's host, empty: where Slurm's tools look for it.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""
    constraint: str = ""
    memory: str = ""
    cpus: int = 0
    time_s: float = _DEFAULT_TIME_S
    apptainer: str = ""
    pyxis: str = ""
    venv: str = ""
    python: str = ""
    folder: str = "/tmp"  # noqa: S108  # a folder of the box's own is made in it, and checked
    output: str = "/dev/null"
    conf: str = ""
    setup: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises WrongOption, which names the option that is wrong."""
    known = (*_NAMES, "cpus", "time", "container", "venv", "python", "folder", "output", "conf", "setup", "sbatch")
    only(SLURM, given, known, what_of=WHAT_OF)
    found: dict[str, Any] = {name: _word(name, given[name]) for name in _NAMES if name in given}
    found |= {n: _path(n, given[n]) for n in ("venv", "python", "folder", "output", "conf") if n in given}
    if "venv" in found and "python" in found:
        raise _wrong("python", "is given beside venv", "remove one of them")
    if "cpus" in given:
        cpus = given["cpus"]
        if isinstance(cpus, bool) or not isinstance(cpus, int) or not 1 <= cpus <= 4096:
            raise _wrong("cpus", "must be a whole number of 1 to 4096", found=cpus)
        found["cpus"] = cpus
    if "time" in given:
        found["time_s"] = _time(given["time"])
    if "container" in given:
        found |= _container(given["container"])
    for name in ("setup", "sbatch"):
        found[name] = _lines(name, given.get(name, ()))
    for i, word in enumerate(found["sbatch"]):
        if word.startswith(_SHORT) or word.removeprefix("--").partition("=")[0] in _OWN or not word.startswith("-"):
            raise _wrong(f"sbatch.{i}", "cannot be given", "write --name=value; emp sets the job's name", found=word)
    return Options(**found)


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise _wrong(name, "must be one word, as sbatch takes it", found=value)
    return value


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or len(value) > _MAX_CHARS:
        raise _wrong(name, "must be an absolute path", found=value)
    return value


def _time(value: Any) -> float:
    try:
        found = seconds(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or not _TIMES_S[0] <= found <= _TIMES_S[1]:
        raise _wrong("time", "must be a duration of 2m to 365d, such as 4h", found=value)
    return found


def _container(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in ("apptainer", "pyxis"):
        raise _wrong("container", "must be {apptainer: IMAGE} or {pyxis: IMAGE}", found=value)
    ((kind, image),) = value.items()
    return {kind: _word(f"container.{kind}", image)}


def _lines(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_LINES:
        raise _wrong(name, f"must be a list of at most {_MAX_LINES} lines")
    for i, line in enumerate(value):
        if not isinstance(line, str) or not line.strip() or len(line) > _MAX_CHARS or "\0" in line:
            raise _wrong(f"{name}.{i}", f"must be text of at most {_MAX_CHARS} characters")
    return tuple(value)
