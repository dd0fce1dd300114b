"""emp.yaml and .env on disk → a Fleet, or every problem at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from emp_orch.fleet.model.fleet import Fleet
from emp_orch.host import plainfile
from emp_orch.manifest.build import Built, build
from emp_orch.manifest.checks import comfyui, devices, warmups
from emp_orch.manifest.checks.semantic import check
from emp_orch.manifest.text import dotenv
from emp_orch.manifest.text.interpolate import Resolver
from emp_orch.manifest.text.problems import ConfigError, Mark, Problem, Report, TooMany
from emp_orch.manifest.text.source import MAX_BYTES, parse
from emp_orch.manifest.text.tree import Scalar, Source
from emp_orch.manifest.validate import validate


def load(path: Path, environ: Mapping[str, str], *, here: bool = False) -> Fleet:
    """The fleet that the file at `path` describes. `environ` and then `.env` beside it give `${…}` their values.

    `here`: what this host's own machines are to start must be there too; for who is about to start them.
    Raises ConfigError, also when the file cannot be read.
    """
    text = _read(path, limit=MAX_BYTES, missing="`emp init` writes one")
    found = _checked(text, _label(path), environment(path, environ), path.name, here=here, folder=path.parent)
    return found[0].fleet


def load_stream(stream: BinaryIO, folder: Path, environ: Mapping[str, str], *, here: bool = False) -> Fleet:
    """As `load`, of an emp.yaml that comes from `stream` and would stand in `folder`. Raises ConfigError, OSError."""
    label = "(stdin)"
    text = _text(label, stream.read(MAX_BYTES + 1), MAX_BYTES)
    known = environment(folder / "emp.yaml", environ)
    return _checked(text, label, known, "emp.yaml", here=here, folder=folder)[0].fleet


def environment(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` over the variables of the `.env` beside the emp.yaml at `path`. Raises ConfigError."""
    file = path.with_name(".env")
    if not os.path.lexists(file) or is_virtual_environment(file):
        return dict(environ)
    report = Report(_label(file))
    try:
        found = dotenv.parse(_read(file, limit=dotenv.MAX_BYTES), report)
    except TooMany:
        raise ConfigError(report.problems) from None
    if report.problems:
        raise ConfigError(report.problems)
    return {**found, **environ}


def is_virtual_environment(path: Path) -> bool:
    """Whether `path` is Python's: some have it in a folder that is called .env."""
    return (path / "pyvenv.cfg").is_file()


def load_text(text: str, *, file: str, environ: Mapping[str, str], origin: str | None = None) -> Fleet:
    """The fleet that `text` describes. `file` is its name in problems; `origin` in the fleet, if it differs."""
    return _checked(text, file, environ, origin or file)[0].fleet


class Setting(Struct, frozen=True, kw_only=True):
    """What a file says of one setting: `text` as it stands there, empty when the default holds."""

    origin: str
    text: str
    value: int


def num_gpus(path: Path, environ: Mapping[str, str], machine_id: str) -> Setting | None:
    """Where the file at `path` says how many GPU slots a machine has; None when it names no such machine.

    Raises ConfigError.
    """
    text = _read(path, limit=MAX_BYTES)
    built, source = _checked(text, _label(path), environment(path, environ), path.name)
    machine = next((m for m in built.fleet.machines if m.id == machine_id), None)
    if machine is None:
        return None
    steps = (("machines", built.owner[machine.id], "num_gpus"), ("defaults", "num_gpus"))
    node = next((n for n in map(source.node, steps) if isinstance(n, Scalar)), None)
    if node is None:
        return Setting(origin=machine.origin, text="", value=machine.num_gpus)
    origin = f"{path.name}:{node.mark.line}:{node.mark.column}"
    return Setting(origin=origin, text=node.text, value=machine.num_gpus)


def _checked(
    text: str,
    file: str,
    environ: Mapping[str, str],
    origin: str,
    *,
    here: bool = False,
    folder: Path | None = None,
) -> tuple[Built, Source]:
    """`text` as a fleet and as a tree; what stands in files beside it is read where `folder` is told. Raises
    ConfigError.
    """
    report = Report(file)
    try:
        found = _steps(text, report, environ, origin, here=here, folder=folder)
    except TooMany:
        raise ConfigError(report.problems) from None
    if found is None or report.problems:
        raise ConfigError(report.problems)
    return found


def _steps(
    text: str, report: Report, environ: Mapping[str, str], origin: str, *, here: bool, folder: Path | None
) -> tuple[Built, Source] | None:
    """Every step reports what it finds, and the next goes on with what is sound."""
    source = parse(text, report)
    if source is None:
        return None
    document = Resolver(source, environ, report).resolve()
    validate(document, source, report)
    built = build(document, source, report, file=origin)
    if folder is not None:
        built = warmups.read(built, document, source, report, folder=folder)
    check(built, document, source, report)
    if here:
        comfyui.check_here(built, source, report)
        devices.check_here(built, source, report)
    return built, source


def _label(path: Path) -> str:
    """`path` as a person here would write it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return str(path)


def _read(path: Path, *, limit: int, missing: str = "") -> str:
    label = _label(path)
    try:
        content = plainfile.read(path, limit=limit)
    except (OSError, ValueError) as e:
        raise ConfigError([_unreadable(label, e, missing)]) from e
    return _text(label, content, limit)


def _text(label: str, content: bytes, limit: int) -> str:
    if len(content) > limit:
        raise ConfigError([_whole(label, f"larger than {limit // 1024 // 1024} MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        mark = Mark(content.count(b"\n", 0, e.start) + 1, e.start - content.rfind(b"\n", 0, e.start))
        problem = Problem(file=label, line=mark.line, column=mark.column, path="", message="not UTF-8 text")
        raise ConfigError([problem]) from e


def _unreadable(label: str, error: Exception, missing: str) -> Problem:
    match error:
        case FileNotFoundError():
            return _whole(label, "no such file", missing)
        case IsADirectoryError() if label.rpartition("/")[2] == ".env":
            return _whole(label, "is a folder; emp reads NAME=VALUE lines from a file of that name", "rename it")
        case IsADirectoryError():
            return _whole(label, "is a folder", "name the file in it")
        case plainfile.NotAFile():
            hint = "`emp validate -` and `emp render -` read standard input; emp apply needs a file that stays"
            return _whole(label, error.strerror or "is no file", hint)
        case PermissionError():
            return _whole(label, "permission denied", "make it readable for the user who runs emp")
        case OSError() if error.errno:
            return _whole(label, f"cannot be read ({errno.errorcode.get(error.errno, error.errno)})")
        case _:
            return _whole(label, "cannot be read")


def _whole(label: str, message: str, hint: str = "") -> Problem:
    return Problem(file=label, line=0, column=0, path="", message=message, hint=hint)
