"""`provider_options` of the `command` provider; docs/pools-command.md describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from emp_orch.fleet.model.fleet import EnvValue, SecretRef
from emp_orch.options.base import WrongOption, only
from emp_orch.units import seconds

COMMAND = "command"

_ABOUT = "provider_options of the {} provider"
_KNOWN = ("command", "timeout", "every", "env")
_SOURCES = ("env", "file")
# Who asks for a box waits a little longer than the longest.
_TIMEOUTS_S = (1.0, 80.0)
_EVERY_S = (0.0, 600.0)
_MAX_WORDS = 100
_MAX_NAMES = 100
_MAX_CHARS = 4096
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What emp tells a box goes to the program in its request, and not as its own environment.
_OWN = "EMP_"

_wrong = partial(WrongOption, COMMAND, what_of=_ABOUT)


class Options(Struct, frozen=True, kw_only=True):
    """`command`: the program and its arguments. `timeout_s`: how long one request may take. `every_s`: a list is asked
    for anew when it is so old. `env`: what the program finds in its environment beside what emp passes on.
    """

    command: tuple[str, ...]
    timeout_s: float = 60.0
    every_s: float = 10.0
    env: Mapping[str, EnvValue] = {}

    @property
    def refs(self) -> tuple[tuple[str, SecretRef], ...]:
        """The secrets that `env` refers to, by the names of variables."""
        return tuple((name, value) for name, value in self.env.items() if isinstance(value, SecretRef))


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises WrongOption, which names the option that is wrong."""
    only(COMMAND, given, _KNOWN, what_of=_ABOUT)
    spans = {"timeout_s": _span(given, "timeout", _TIMEOUTS_S), "every_s": _span(given, "every", _EVERY_S)}
    found = {name: value for name, value in spans.items() if value is not None}
    return Options(command=_command(given.get("command")), env=_env(given.get("env")), **found)


def _command(value: Any) -> tuple[str, ...]:
    if value is None:
        raise _wrong("command", "is missing", "write your program as a list of words: [python3, ./mine.py]")
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MAX_WORDS:
        hint = "write your program as a list of words: [python3, ./mine.py]"
        raise _wrong("command", f"must be a list of 1 to {_MAX_WORDS} words", hint, found=value)
    for n, word in enumerate(value):
        if not isinstance(word, str) or "\0" in word or len(word) > _MAX_CHARS or not (word or n):
            raise _wrong(f"command.{n}", f"must be text of at most {_MAX_CHARS} characters", "put it in quotes")
    return tuple(value)


def _span(given: Mapping[str, Any], name: str, bounds: tuple[float, float]) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        found = seconds(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or not bounds[0] <= found <= bounds[1]:
        raise _wrong(name, f"must be a duration of {bounds[0]:g}s to {bounds[1]:g}s, such as 30s", found=value)
    return found


def _env(value: Any) -> Mapping[str, EnvValue]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MAX_NAMES:
        hint = "write NAME: text, or NAME: {env: NAME} or NAME: {file: PATH} for a secret"
        raise _wrong("env", f"must be a mapping of at most {_MAX_NAMES} variables", hint)
    return {str(name): _value(str(name), each) for name, each in value.items()}


def _value(name: str, value: Any) -> EnvValue:
    at = f"env.{name}"
    if not _NAME.fullmatch(name) or name.startswith(_OWN):
        hint = "letters, digits and _, not beginning with a digit or with EMP_"
        raise _wrong(at, "is no name of a variable that can be given", hint)
    if isinstance(value, str) and "\0" not in value and len(value) <= _MAX_CHARS:
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        ((source, where),) = value.items()
        fits = isinstance(where, str) and where.isprintable() and 0 < len(where) <= _MAX_CHARS
        if source in _SOURCES and fits and (source == "file" or _NAME.fullmatch(where)):
            return SecretRef(source=source, name=where)
    hint = "{env: NAME} and {file: PATH} are for secrets; put a number in quotes"
    raise _wrong(at, f"must be text of at most {_MAX_CHARS} characters, {{env: NAME}} or {{file: PATH}}", hint)
