"""Lua programs out of .lua files: the one place that reads them and puts them together.

The script `ROOM/NAME` is store/ROOM/lua/NAME.lua. The comment at its top tells what it does, its KEYS and ARGV, its
answer, and what it holds to. Lines of that comment declare what Redis gets before the script's own lines:

    -- key names: JOBS, LANE         `local JOBS = "jobs"`, as redis/keys.py names it, with the fleet's prefix
    -- limits: MAX_EVENTS            `local MAX_EVENTS = 10000`, as the module that asks for the script gives it
    -- include lanes: know_lane      a function of lanes.lua, after what the comment above that function declares

In the script itself `-- include held` puts all of held.lua there: a part that several scripts share. An `-- include
lanes: …` inside a branch puts the functions there: a script is run from its first line at each call, and what is
seldom needed is best made where it is needed.

An included file is looked for beside the one that includes it, then in the `shared` folder next to that, then in
redis/lua. All comes in the order in which it is declared, and once. The comments at the top of files and functions are
not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.render.quoting import lua_text
from emp_orch.resources import MODULES
from emp_orch.store.redis.keys import Keys

STORE = MODULES / "store"
COMMON = STORE / "redis" / "lua"

_DECLARATION = re.compile(r" *-- (key names|limits|include \w+)(?:: (.*))?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_FUNCTION = re.compile(r"local (?:function )?(\w+)")


class BadScript(EmpError):
    """A .lua file that does not hold together."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}", hint="reinstall emp")


class Declaration(Struct, frozen=True):
    """`source` is the file of an include, empty for the others; an include without names is of the whole file."""

    kind: str
    source: str
    names: tuple[str, ...]


class Function(Struct, frozen=True):
    """What a file gives to others under one name; `code` without the comment above it."""

    declared: tuple[Declaration, ...]
    code: str


class Source(Struct, frozen=True):
    """One file: as a script or a part its `declared` and `code`, as a file of functions those."""

    path: Path
    declared: tuple[Declaration, ...]
    code: tuple[str, ...]
    functions: Mapping[str, Function]


def script(name: str, keys: Keys | None = None, limits: Mapping[str, int] | None = None) -> str:
    """The text of the script `name`, e.g. `reports/put` or `queue/claim/next`.

    Raises BadScript, naming the file, for an include that is not there, a name or a limit that nobody gives, and a
    circle.
    """
    return _script(name, keys, tuple((limits or {}).items()))


@lru_cache(maxsize=256)
def _script(name: str, keys: Keys | None, limits: tuple[tuple[str, int], ...]) -> str:
    room, _, below = name.partition("/")
    source = read(STORE / room / "lua" / f"{below}.lua")
    composing = _Composing(keys, dict(limits))
    there: set[str] = set()
    before = [
        line for part in composing.parts(source) for line in composing.needed(part.declared, part.path, there, ())
    ]
    return "\n".join(["", *before, *composing.lines(source, there), ""])


class _Composing:
    """For one fleet's keys and one room's limits."""

    def __init__(self, keys: Keys | None, limits: Mapping[str, int]) -> None:
        self._keys = keys
        self._limits = limits

    def parts(self, source: Source, within: tuple[Path, ...] = ()) -> Iterator[Source]:
        """The file itself, and those that it includes as a whole."""
        if source.path in within:
            raise BadScript(source.path, "it includes itself")
        yield source
        for line in source.code:
            found = declaration(line, source.path)
            if found and not found.names:
                yield from self.parts(included(found.source, source.path), (*within, source.path))

    def lines(self, source: Source, there: set[str]) -> Iterator[str]:
        """The file's own lines, with what is included among them. `there`: what stands before them."""
        for line in source.code:
            found = declaration(line, source.path)
            if found is None:
                yield line
            elif found.names:
                yield from self.needed([found], source.path, set(there), ())
            else:
                yield from self.lines(included(found.source, source.path), there)

    def needed(
        self, declared: Iterable[Declaration], path: Path, there: set[str], within: tuple[str, ...]
    ) -> Iterator[str]:
        """What is declared and not `there` yet, which grows by it."""
        for one in declared:
            for name in one.names:
                if name in within:
                    raise BadScript(path, f"{name} includes itself")
                if name in there:
                    continue
                match one.kind:
                    case "key names":
                        yield f"local {name} = {lua_text(self._key(name, path))}"
                    case "limits":
                        yield f"local {name} = {self._limit(name, path)}"
                    case _:
                        source = included(one.source, path)
                        function = source.functions.get(name)
                        if function is None:
                            raise BadScript(path, f"includes {name}, which {source.path} does not have")
                        yield from self.needed(function.declared, source.path, there, (*within, name))
                        yield function.code
                there.add(name)

    def _key(self, name: str, path: Path) -> str:
        """A key, or what all keys of its kind begin with."""
        if self._keys is None:
            raise BadScript(path, f"names the key {name}, and was given no keys")
        found = getattr(self._keys, name.lower(), None)
        key = found("") if callable(found) else found
        if not isinstance(key, str):
            raise BadScript(path, f"names the key {name}, which redis/keys.py does not have")
        return key

    def _limit(self, name: str, path: Path) -> int:
        if name not in self._limits:
            raise BadScript(path, f"names the limit {name}, which was not given")
        return self._limits[name]


def included(name: str, path: Path) -> Source:
    """The file that the one at `path` includes as `name`. Raises BadScript."""
    for folder in (path.parent, path.parent.parent / "shared", COMMON):
        if (found := folder / f"{name}.lua").is_file():
            return read(found)
    raise BadScript(path, f"includes {name}, and there is no {name}.lua")


def declaration(line: str, path: Path) -> Declaration | None:
    """What one line declares. Raises BadScript for one that names nothing that could be a name."""
    found = _DECLARATION.fullmatch(line)
    if found is None:
        return None
    kind, _, source = found[1].partition(" ") if found[1].startswith("include") else (found[1], "", "")
    names = tuple(name.strip() for name in found[2].split(",")) if found[2] else ()
    if not all(map(_NAME.fullmatch, names)) or not (names or source):
        raise BadScript(path, f"declares no names: {line.strip()}")
    return Declaration(kind, source, names)


@cache
def read(path: Path) -> Source:
    """One file. Raises BadScript where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise BadScript(path, f"cannot be read: {e.strerror}") from e
    head = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
    code = "\n".join(lines[head:]).strip("\n").split("\n")
    return Source(path, _declared(lines[:head], path), tuple(code), dict(_functions(lines, path)))


def _functions(lines: list[str], path: Path) -> Iterator[tuple[str, Function]]:
    """What begins with `local` at the left margin, with the comment right above it."""
    begins = [n for n, line in enumerate(lines) if _FUNCTION.match(line)]
    heads = [_comment_above(lines, n) for n in begins]
    for begin, head, end in zip(begins, heads, [*heads, len(lines)][1:], strict=True):
        if found := _FUNCTION.match(lines[begin]):
            yield found[1], Function(_declared(lines[head:begin], path), "\n".join(lines[begin:end]).rstrip())


def _comment_above(lines: list[str], at: int) -> int:
    while at > 0 and lines[at - 1].startswith("--"):
        at -= 1
    return at


def _declared(comment: Iterable[str], path: Path) -> tuple[Declaration, ...]:
    return tuple(found for line in comment if (found := declaration(line, path)))
