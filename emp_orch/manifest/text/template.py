"""`${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$${` in one text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_NESTING = 8
_FORMS = "write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ stands for a plain ${"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of a text. `given`: a variable gave it, so it is never split. `kept`: a variable left for later."""

    text: str
    given: bool = False
    kept: bool = False


class BadTemplate(Exception):
    """A `${…}` that cannot be replaced. `unset`: the variable `name` has no value."""

    def __init__(self, message: str, *, name: str = "", unset: bool = False, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.unset = unset
        self.hint = hint


def template(text: str, environ: Mapping[str, str], *, keep: frozenset[str] = frozenset()) -> list[Piece]:
    """`text` in pieces, with every variable but those in `keep` looked up in `environ`. Raises BadTemplate.

    Values are not looked into: a `${…}` inside one stays as it is, and where variables are kept it is refused, because
    whoever replaces them later could not tell it from the file's own.
    """
    pieces = _Scanner(text, environ, keep).pieces()
    if keep:
        marker = re.compile(r"\$\{(?:" + "|".join(sorted(keep)) + r")\}")
        found = marker.findall(render(pieces))
        if len(found) > sum(p.kept for p in pieces):
            raise BadTemplate(f"a plain {found[0]} cannot be written here", hint="emp replaces it for each program")
    return pieces


def render(pieces: Sequence[Piece]) -> str:
    return "".join(p.text for p in pieces)


def split(pieces: Sequence[Piece]) -> list[str]:
    """The words of a command line, quoted as for a POSIX shell; what a variable gave stays in one word.

    Raises ValueError when a quote is never closed. The file's own text holds no NUL (source.py).
    """
    line = "".join(f"\0{i}\0" if p.given else p.text for i, p in enumerate(pieces))
    return [re.sub("\0([0-9]+)\0", lambda m: pieces[int(m[1])].text, word) for word in shlex.split(line)]


class _Scanner:
    """One pass over one text. `wanted` False: read on without looking variables up, for a default not needed."""

    def __init__(self, text: str, environ: Mapping[str, str], keep: frozenset[str]) -> None:
        self._text = text
        self._environ = environ
        self._keep = keep
        self._at = 0

    def pieces(self) -> list[Piece]:
        return self._until(end="", depth=0, wanted=True)

    def _until(self, *, end: str, depth: int, wanted: bool) -> list[Piece]:
        """Pieces up to `end` (a `}`, which is left), or to the end of the text."""
        if depth > _MAX_NESTING:
            raise BadTemplate("variables nested too deeply", hint=_FORMS)
        pieces: list[Piece] = []
        text, start = self._text, self._at
        while self._at < len(text) and not (end and text[self._at] == end):
            if text.startswith("$${", self._at):
                pieces += [Piece(text=text[start : self._at]), Piece(text="${")]
                self._at += 3
                start = self._at
            elif text.startswith("${", self._at):
                pieces.append(Piece(text=text[start : self._at]))
                self._at += 2
                pieces += self._variable(depth, wanted)
                start = self._at
            else:
                self._at += 1
        if end and self._at == len(text):
            raise BadTemplate("${ without its }", hint=_FORMS)
        return [*pieces, Piece(text=text[start : self._at])]

    def _variable(self, depth: int, wanted: bool) -> list[Piece]:
        """What stands after `${`, up to and with its `}`."""
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise BadTemplate("expected a variable's name after ${", hint=_FORMS)
        name, self._at = match[0], match.end()
        value = self._environ.get(name)
        if self._text.startswith("}", self._at):
            self._at += 1
            if name in self._keep:
                return [Piece(text=f"${{{name}}}", kept=True)]
            if value is None and wanted:
                raise BadTemplate(f"${{{name}}} is not set", name=name, unset=True)
            return [Piece(text=_clean(name, value or ""), given=True)]
        operator = self._text[self._at : self._at + 2]
        if operator not in (":-", ":?"):
            raise BadTemplate(f"expected }}, :- or :? after ${{{name}", hint=_FORMS)
        self._at += 2
        other = self._until(end="}", depth=depth + 1, wanted=wanted and not value and operator == ":-")
        self._at += 1
        if value:
            return [Piece(text=_clean(name, value), given=True)]
        if operator == ":?" and wanted:
            message = "".join(p.text for p in other if not p.given)
            raise BadTemplate(f"${{{name}}} is not set: {message}" if message else f"${{{name}}} is not set", name=name)
        # An empty default still is one (empty) word.
        return [Piece(text="", given=True), *(replace(p, given=True) for p in other)]


def _clean(name: str, value: str) -> str:
    """`value`, refused when it is no text that a process could get."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadTemplate(f"the value of ${{{name}}} is not UTF-8 text", name=name)
    return value
