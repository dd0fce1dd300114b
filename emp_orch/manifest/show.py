"""Values in messages: for a person to recognise, and without giving a secret away."""

from __future__ import annotations

import re
from typing import Any

from emp_orch.manifest.text.problems import Path, quoted
from emp_orch.manifest.text.tree import Scalar, Source

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
_USERINFO = re.compile(r"://.*@", re.DOTALL)
_SCHEME = re.compile(r"[a-z][a-z0-9+]{0,15}://")


def found(source: Source, path: Path, value: Any) -> str:
    """`value` for a person; what came from the environment or may be secret is not shown."""
    node = source.node(path)
    if isinstance(node, Scalar) and (names := _VARIABLE.findall(node.text)):
        given = " and ".join(f"${{{name}}}" for name in dict.fromkeys(names))
        return f"{'empty text' if value == '' else _kind(value)} from {given}"
    if value == [] and isinstance(node, Scalar):  # a command of no words
        return "empty text"
    if isinstance(value, str) and _is_url(path) and (scheme := _SCHEME.match(value)):
        return f"a URL that begins with {scheme[0]}"
    if isinstance(value, dict | list) or value is None or _is_secret(path) or _is_url(path):
        return _kind(value)
    if isinstance(value, str):
        return quoted(_USERINFO.sub("://***@", value))
    return node.text[:60] if isinstance(node, Scalar) else repr(value)


def _is_secret(path: Path) -> bool:
    """Whether a value at `path` may be a secret, or hold one: tokens, variables, words of commands."""
    return any(step in ("env", "token", "previous", "command", "args", "file") for step in path)


def _is_url(path: Path) -> bool:
    if path[:1] == ("hosts",) and path[2:] == ("docker",):
        return True
    return path in (("redis", "url"), ("redis", "machine_url"), ("jobs", "artifacts"))


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return "a list" if value else "an empty list"
