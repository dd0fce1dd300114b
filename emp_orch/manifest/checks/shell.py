"""What only a shell understands, in the words of a command that emp starts without one.

A note, no error: any word may be meant as it stands. Words may hold secrets, so only the piece of syntax is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from emp_orch.fleet.model.fleet import Fleet, Service

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"})
_OPERATORS = frozenset({"&&", "||", "|", "|&", ";", "&", "&>", "&>>"})
_REDIRECTION = re.compile(r"[0-9]?(>>|>|<<<|<<|<)(?!.*>$)(&[0-9-]|.*)\Z")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_ONE_SHELL = '["sh", "-c", "…"]'
_LIST = f"write it as {_ONE_SHELL}"
# Words of a shell itself, that no program goes by.
_BUILTINS = {
    "source": f"{_LIST}; a virtual environment needs no activation: name its bin/python",
    ".": f"{_LIST}; a virtual environment needs no activation: name its bin/python",
    "cd": "say cwd: FOLDER",
    "export": "say env: {NAME: value}",
    "exec": "leave it out: emp starts the program itself",
    "ulimit": _LIST,
}


def notes(fleet: Fleet) -> Iterator[str]:
    """One line for each piece of shell syntax that stands in a command."""
    for service in fleet.services.values():
        for where, words in _commands(service):
            for token, way in findings(words):
                what = f"{token} is a shell's, and no shell reads this command"
                yield f"{service.origin}: note: services.{service.name}.{where}: {what}: {way}"


def _commands(service: Service) -> Iterator[tuple[str, tuple[str, ...]]]:
    if service.command is not None:
        yield "command", service.command
    if service.install is not None:
        yield "install.command", service.install.command
    if service.health is not None:
        yield "health.command", service.health.command


def findings(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each piece of syntax once, and what to write instead."""
    told: set[str] = set()
    for token, way in _findings(words):
        if token not in told:
            told.add(token)
            yield token, way


def _findings(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    first = next((n for n, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    for name in (word.partition("=")[0] for word in words[:first]):
        yield f"{name}=", f"say env: {{{name}: value}}"
    words = words[first:]
    if _starts_shell(words):
        return  # it reads its own words
    if words and (way := _BUILTINS.get(words[0])):
        yield words[0], way
    for n, word in enumerate(words):
        yield from _in_word(word, last=n == len(words) - 1)


def _starts_shell(words: tuple[str, ...]) -> bool:
    named = [word.rpartition("/")[2] for word in words]
    if named[:1] == ["env"]:
        named = [name for name, word in zip(named[1:], words[1:], strict=True) if not _ASSIGNMENT.match(word)]
    return bool(named) and named[0] in _SHELLS


def _in_word(word: str, *, last: bool) -> Iterator[tuple[str, str]]:
    if word in _OPERATORS:
        yield word, "leave it out: emp waits for no service" if word == "&" and last else _LIST
        return
    if word == "~" or word.startswith("~/"):
        yield "~", "write ${HOME}, or the whole path"
    if any(c.isspace() for c in word):
        return  # it stood in quotes: text for the program
    if found := _REDIRECTION.match(word):
        yield found[1], f"{_LIST}; what a program prints is in `emp logs` anyway"
    if "`" in word:
        yield "`…`", _LIST
    if "$(" in word:
        yield "$(…)", _LIST
    elif found := _VARIABLE.search(word):
        yield f"${found[1]}", f"write ${{{found[1]}}}, which emp replaces"
    if len(word) > 1 and word.endswith(";"):
        yield ";", _LIST
