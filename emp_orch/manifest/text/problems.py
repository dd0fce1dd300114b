"""What is wrong with an emp.yaml, where, and the way out: Problem and the error that carries them all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from emp_orch.errors import UsageError

# One step into the document: a key of a mapping or an index of a list.
Step = str | int
Path = tuple[Step, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
MAX_PROBLEMS = 200


class Mark(Struct, frozen=True, gc=False):
    """A place in a text; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. `path` is its place in the YAML (`machines.a.num_gpus`), empty for the whole file.

    Neither `message` nor `hint` ever holds a value that may be secret.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """`file:line:column: path: message`, and the hint on a line of its own."""
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        what = f"{self.path}: {self.message}" if self.path else self.message
        return f"{where}{what}\n    {self.hint}" if self.hint else f"{where}{what}"


class ConfigError(UsageError):
    """An emp.yaml (or the `.env` beside it) that cannot be used, with every problem found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        lines = [p.text for p in self.problems]
        if len(lines) > 1:
            count = f"{len(lines)} or more" if len(lines) >= MAX_PROBLEMS else len(lines)
            lines.insert(0, f"{count} problems")
        super().__init__("\n".join(lines))


class TooMany(Exception):
    """A report is full; going on would not help anyone."""


class Report:
    """Collects what is wrong with one file. Raises TooMany after MAX_PROBLEMS."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Problem] = []
        self._paths: set[Path] = set()
        self._touched: set[Path] = set()

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self._found)

    def add(self, path: Path, mark: Mark, message: str, hint: str = "", *, covers: bool = True) -> None:
        """Note one problem. `covers` False: the value at `path` is still worth looking at."""
        problem = Problem(
            file=self.file,
            line=mark.line,
            column=mark.column,
            path=dotted(path),
            message=printable(message),
            hint=printable(hint),
        )
        if problem in self._found:
            return
        if len(self._found) == MAX_PROBLEMS:
            raise TooMany
        self._found.append(problem)
        if covers:
            self._paths.add(path)
        self._touched.update(path[:end] for end in range(len(path) + 1))

    def sound(self, path: Path) -> bool:
        """Whether nothing at, below or above `path` is wrong so far."""
        return path not in self._touched and not self.covered(path)

    def covered(self, path: Path) -> bool:
        """Whether something at or above `path` is wrong already, so that a further word on it would be noise."""
        return any(path[:end] in self._paths for end in range(len(path) + 1))


def dotted(path: Sequence[Step]) -> str:
    """`("machines", "a", "services", 0)` as `machines.a.services[0]`; unusual keys stand in quotes."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = step if _PLAIN_KEY.match(step) else quoted(step)
            text += f".{key}" if text else key
    return text


def quoted(text: str, *, limit: int = 60) -> str:
    """`text` in double quotes on one line, cut when long, with control characters escaped."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'"{printable(cut)}"'


def printable(text: str) -> str:
    """`text` with line breaks and control characters escaped, so that it cannot disturb a terminal or a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def did_you_mean(word: str, known: Iterable[str], *, list_all: bool = True) -> str:
    """A hint naming the nearest known word, or all of them when few; empty when neither helps."""
    names = list(known)
    near = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    if list_all and 0 < len(names) <= 16:
        return f"known here: {', '.join(names)}"
    return ""
