"""YAML text → the tree of tree.py.

Built on the parser's events, not on its composer: the composer of libyaml recurses in C without a limit, forgets where
an alias stood, and guesses types by YAML 1.1. Types are decided later, after interpolation.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from msgspec import Struct
from yaml import events

from emp_orch.manifest.text.problems import Mark, Path, Report, Step, quoted
from emp_orch.manifest.text.tree import Mapping, Node, Scalar, Sequence, Source, kind

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
# A fleet may well use one anchor a thousand times; a bomb doubles at every line.
MAX_VALUES = 2_000_000
MAX_GROWTH = 20
_FREE_VALUES = 20_000

# Beside what YAML forbids: U+0085, U+2028 and U+2029, which YAML 1.1 takes for line breaks and editors do not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STANDARD = "tag:yaml.org,2002:"
_MERGE = "<<"


class _Refused(Exception):
    """Parsing cannot go on."""

    def __init__(self, mark: Mark | None, message: str, hint: str = "", path: Path = ()) -> None:
        super().__init__(message)
        self.mark = mark or Mark(0, 0)
        self.message = message
        self.hint = hint
        self.path = path


def parse(text: str, report: Report) -> Source | None:
    """The tree of `text`, or None when the parser cannot go on; what is wrong goes to `report`."""
    try:
        _check_text(text)
        return Source(report.file, _Builder(text, report).root())
    except _Refused as e:
        report.add(e.path, e.mark, e.message, e.hint)
    except yaml.MarkedYAMLError as e:
        report.add((), *_syntax_problem(e, text))
    except yaml.YAMLError as e:  # a reader's error: no mark, and _check_text has found all we know of
        report.add((), Mark(1, 1), f"not YAML: {type(e).__name__}")
    return None


def _check_text(text: str) -> None:
    if len(text) > MAX_BYTES:
        raise _Refused(None, f"larger than {MAX_BYTES // 1024 // 1024} MiB", "split the fleet, or use `replicas`")
    bad = _FORBIDDEN.search(text)
    if bad:
        mark = _mark_of(text, bad.start())
        raise _Refused(
            mark,
            f"character U+{ord(bad[0]):04X} is not allowed here",
            "remove it; in double quotes it can be written as \\uXXXX",
        )


def _mark_of(text: str, index: int) -> Mark:
    line_start = text.rfind("\n", 0, index) + 1
    return Mark(text.count("\n", 0, index) + 1, index - line_start + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[Mark, str, str]:
    mark: Any = error.problem_mark or error.context_mark
    at = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
    lines = re.split(r"\r\n?|\n", text)
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    message, hint = f"not YAML: {error.problem or error.context or 'cannot be read'}", ""
    if "\t" in line[: at.column] and not line[: at.column].strip(" \t"):
        message, hint = "a tab cannot indent YAML", "use spaces"
    elif line[: at.column].endswith("${"):
        message, hint = "not YAML: ${ inside { } or [ ]", "put it in quotes, or write this part with one line each"
    elif "mapping values are not allowed" in message:
        message, hint = "not YAML: a second `:` in this place", "quote the text, or check the indentation"
    elif "did not find expected key" in message:
        hint = "check the indentation of this line against the lines above"
    elif error.context and error.context_mark and error.context_mark.line + 1 != at.line:
        hint = f"{error.context}, begun in line {error.context_mark.line + 1}"
    elif "cannot start any token" in message:
        hint = "quote the text"
    return at, message, hint


def _parser(text: str) -> Any:
    """The C parser where PyYAML has it; the same events either way."""
    return yaml.CSafeLoader(text) if yaml.__with_libyaml__ else yaml.SafeLoader(text)


class _Anchor(Struct, frozen=True):
    """`values` counts the node and all below it; `height` the levels below it. `node` None: still being read."""

    node: Node | None
    values: int
    height: int


class _Builder:
    """Builds the tree from events. One use."""

    def __init__(self, text: str, report: Report) -> None:
        self._next = _parser(text).get_event
        self._report = report
        self._anchors: dict[str, _Anchor] = {}
        self._path: list[Step] = []
        self._own = 0  # values written in the file
        self._total = 0  # values after every alias is replaced
        self._deepest = 0

    def root(self) -> Mapping:
        self._next()  # stream start
        first = self._next()
        if isinstance(first, events.StreamEndEvent):
            raise _Refused(Mark(1, 1), "the file is empty", "`emp init` writes one to start from")
        root = self._node(self._next())
        self._next()  # document end
        more = self._next()
        if not isinstance(more, events.StreamEndEvent):
            raise _Refused(_start(more), "a second document begins here", "one file describes one fleet: remove `---`")
        if not isinstance(root, Mapping):
            if isinstance(root, Scalar) and root.plain and not root.text:
                raise _Refused(Mark(1, 1), "the file is empty", "`emp init` writes one to start from")
            raise _Refused(root.mark, f"expected a mapping, found {kind(root)}", "begin with `version: 1`")
        return root

    def _node(self, event: Any) -> Node:
        mark = _start(event)
        if isinstance(event, events.AliasEvent):
            return self._alias(event.anchor, mark)
        self._own += 1
        self._count(1, 0, mark)
        if event.anchor is None:
            return self._content(event, mark)
        before, deepest = self._total - 1, self._deepest
        self._anchors[event.anchor] = _Anchor(None, 0, 0)
        self._deepest = len(self._path)
        node = self._content(event, mark)
        self._anchors[event.anchor] = _Anchor(node, self._total - before, self._deepest - len(self._path))
        self._deepest = max(deepest, self._deepest)
        return node

    def _content(self, event: Any, mark: Mark) -> Node:
        if isinstance(event, events.ScalarEvent):
            if "\0" in event.value:
                self._problem(mark, "a NUL character cannot be part of a value")
            return Scalar(event.value.replace("\0", "\ufffd"), self._is_plain(event, mark), mark)
        if isinstance(event, events.SequenceStartEvent):
            self._check_tag(event.tag, "seq", mark)
            return self._sequence(mark)
        self._check_tag(event.tag, "map", mark)
        return self._mapping(mark)

    def _alias(self, name: str | None, mark: Mark) -> Node:
        if name is None or name not in self._anchors:
            raise _Refused(mark, f"no anchor &{name} stands before this alias")
        anchor = self._anchors[name]
        if anchor.node is None:
            raise _Refused(mark, f"the alias *{name} contains itself")
        self._count(anchor.values, anchor.height, mark)
        return anchor.node

    def _count(self, values: int, height: int, mark: Mark) -> None:
        self._total += values
        self._deepest = max(self._deepest, len(self._path) + height)
        if self._deepest > MAX_DEPTH:
            raise _Refused(mark, f"nested deeper than {MAX_DEPTH} levels")
        if self._total > MAX_VALUES or self._total > _FREE_VALUES + MAX_GROWTH * (self._own + 1):
            raise _Refused(
                mark,
                "aliases blow this file up beyond reason",
                "use `defaults` and `replicas` instead",
            )

    def _sequence(self, mark: Mark) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := self._next(), events.SequenceEndEvent):
            self._path.append(len(items))
            items.append(self._node(event))
            self._path.pop()
        return Sequence(tuple(items), mark)

    def _mapping(self, mark: Mark) -> Mapping:
        keys: dict[str, Mark] = {}
        values: dict[str, Node] = {}
        merges: list[Mapping] = []
        while not isinstance(event := self._next(), events.MappingEndEvent):
            name, at = self._key(event)
            self._path.append(name)
            value = self._node(self._next())
            if name in keys:
                message, hint = f"duplicate key {quoted(name)}", f"it stands in line {keys[name].line} already"
                self._problem(at, message, hint)
            else:
                keys[name] = at
                if name == _MERGE:
                    merges = self._merges(value)
                else:
                    values[name] = value
            self._path.pop()
        if not merges:
            return Mapping(keys, values, mark)
        del keys[_MERGE]
        merged_keys, merged_values = {**keys}, {**values}
        for source in merges:  # the mapping's own keys win, then the earlier source
            for name, value in source.values.items():
                if name not in merged_values:
                    merged_keys[name] = source.keys[name]
                    merged_values[name] = value
        return Mapping(merged_keys, merged_values, mark)

    def _key(self, event: Any) -> tuple[str, Mark]:
        """A key's text. Anything else is refused before it is read: keys are no way to nest without a limit."""
        mark = _start(event)
        if isinstance(event, events.MappingStartEvent | events.SequenceStartEvent):
            what = "a mapping" if isinstance(event, events.MappingStartEvent) else "a list"
            raise _Refused(mark, f"expected text as a key, found {what}", "quote the key", tuple(self._path))
        node = self._node(event)
        if not isinstance(node, Scalar):
            raise _Refused(mark, f"expected text as a key, found {kind(node)}", "quote the key", tuple(self._path))
        return node.text, mark

    def _merges(self, value: Node) -> list[Mapping]:
        sources = list(value.items) if isinstance(value, Sequence) else [value]
        mappings = [s for s in sources if isinstance(s, Mapping)]
        if len(mappings) < len(sources):
            self._problem(value.mark, "expected a mapping to merge, or a list of them", "write `<<: *anchor`")
        return mappings

    def _is_plain(self, event: Any, mark: Mark) -> bool:
        """Whether the scalar's type is open. `!!str` closes it; other standard scalar tags say what we do anyway."""
        tag = event.tag
        if tag in (None, "!"):
            return tag is None and bool(event.implicit[0])
        self._check_tag(tag, "scalar", mark)
        return bool(tag != _STANDARD + "str")

    def _check_tag(self, tag: str | None, shape: str, mark: Mark) -> None:
        known = {"seq": ("seq",), "map": ("map",), "scalar": ("str", "int", "float", "bool", "null")}[shape]
        if tag is not None and tag != "!" and tag not in [_STANDARD + k for k in known]:
            self._problem(mark, f"the tag {tag.replace(_STANDARD, '!!')[:60]} is not supported", "remove it")

    def _problem(self, mark: Mark, message: str, hint: str = "") -> None:
        """Note what is wrong with the text; what it says is still worth looking at."""
        self._report.add(tuple(self._path), mark, message, hint, covers=False)


def _start(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
