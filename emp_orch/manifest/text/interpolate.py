"""`${NAME}` in scalars, and what a scalar means: number, true, false, nothing or text.

Interpolation happens on the parsed tree, so a value never becomes YAML; and a command written as one string is split
into words before the values go in, so a value never becomes two words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingOf
from typing import Any

from emp_orch.manifest.text.problems import Path, Report, did_you_mean
from emp_orch.manifest.text.template import BadTemplate, Piece, render, split, template
from emp_orch.manifest.text.tree import Mapping, Node, Scalar, Sequence, Source

RUNTIME_VARIABLES = frozenset({"port", "gpu", "machine_id"})
# Inside these keys of a service, runtime variables stand for what each program gets.
_RUNTIME_KEYS = frozenset({"command", "args", "env", "cwd", "install", "health"})

_MAX_NAMES = 1000  # of variables to look for a similar one among

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_OCT_HEX = re.compile(r"0(?:o[0-7]{1,20}|x[0-9a-fA-F]{1,15})\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?\Z")


def plain_value(text: str) -> Any:
    """What an unquoted scalar means, by YAML 1.2's core schema: `no` and `on` are text, `0o17` is 15.

    Infinities, and integers beyond 64 bits, mean nothing in a fleet: they stay text, or become a float.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] in "-+.0123456789":
        if _INT.match(text):
            return int(text)
        if _OCT_HEX.match(text):
            return int(text, 0)
        if _FLOAT.match(text) and math.isfinite(number := float(text)):
            return number
    return text


def is_runtime(path: Path) -> bool:
    """Whether `${port}` and its like are left alone at `path`."""
    return len(path) >= 3 and path[0] == "services" and path[2] in _RUNTIME_KEYS


def _is_text(path: Path) -> bool:
    """Whether a scalar at `path` keeps its spelling (`1.10` stays `1.10`): words, variables, labels, GPU ids."""
    match path:
        case ("services" | "machines" | "pools", _, "env" | "labels", _) | ("defaults", "env" | "labels", _):
            return True
        case ("pools", _, "provider_options", "command", int()) | ("pools", _, "provider_options", "env", _):
            return True
        case ("services", _, "command" | "args", int()) | ("services", _, "install" | "health", "command", int()):
            return True
        case ("machines", _, "gpus", "ids", int()) | ("defaults", "gpus", "ids", int()):
            return True
        case _:
            return False


def _is_command(path: Path) -> bool:
    match path:
        case ("services", _, "command") | ("services", _, "install" | "health", "command"):
            return True
        case _:
            return False


class Resolver:
    """Turns a Source into plain values; what is wrong goes to `report`."""

    def __init__(self, source: Source, environ: MappingOf[str, str], report: Report) -> None:
        self._source = source
        self._environ = environ
        self._report = report

    def resolve(self) -> dict[str, Any]:
        """The document. Keys that begin with `x-` hold anchors for the rest of the file and are left out."""
        root = self._source.root
        return {k: self._value(v, (k,)) for k, v in root.values.items() if not k.startswith("x-")}

    def _value(self, node: Node, path: Path) -> Any:
        match node:
            case Mapping():
                return {k: self._value(v, (*path, k)) for k, v in node.values.items()}
            case Sequence():
                return [self._value(v, (*path, i)) for i, v in enumerate(node.items)]
            case Scalar():
                return self._scalar(node, path)

    def _scalar(self, node: Scalar, path: Path) -> Any:
        pieces = [Piece(text=node.text)] if "${" not in node.text else self._look_up(node, path)
        if pieces is None:
            return node.text
        if _is_command(path) and not (node.plain and node.text in _NULL):
            return self._words(pieces, node, path)
        text = render(pieces)
        if not node.plain or (_is_text(path) and node.text not in _NULL):
            return text
        # A variable that is empty gives empty text, not "nothing".
        return text if not text and node.text else plain_value(text)

    def _look_up(self, node: Scalar, path: Path) -> list[Piece] | None:
        """The scalar with its variables replaced, or None after noting what is wrong."""
        keep = RUNTIME_VARIABLES if is_runtime(path) else frozenset()
        try:
            return template(node.text, self._environ, keep=keep)
        except BadTemplate as e:
            message, hint = e.message, e.hint
            if e.name in RUNTIME_VARIABLES and not keep:
                message = f"${{{e.name}}} has no value here"
                hint = "it is known inside a service's command, args, env, cwd, install and health"
            elif e.unset:
                near = did_you_mean(e.name, list(self._environ)[:_MAX_NAMES], list_all=False)
                hint = f"{near} " if near else ""
                hint += f"set it in the environment or in .env, or write ${{{e.name}:-default}}"
            self._report.add(path, node.mark, message, hint)
            return None

    def _words(self, pieces: list[Piece], node: Scalar, path: Path) -> Any:
        try:
            return split(pieces)
        except ValueError:
            hint = "close it, or write the command as a list: [program, argument]"
            self._report.add(path, node.mark, "a quote is never closed", hint)
            return node.text
