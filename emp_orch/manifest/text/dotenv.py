"""The `.env` beside an emp.yaml: lines of NAME=VALUE."""

from __future__ import annotations

import re

from emp_orch.manifest.text.problems import Mark, Report

MAX_BYTES = 1024 * 1024

_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=")
_TAIL = re.compile(r"[ \t]*(?:#.*)?\Z")
_COMMENT = re.compile(r"[ \t]#.*\Z")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def parse(text: str, report: Report) -> dict[str, str]:
    """The variables of a .env; a later line wins. Lines that are wrong go to `report`, which never shows a value.

    `export NAME=VALUE`; `#` begins a comment at the start of a line or after a space; 'single quotes' keep everything,
    "double quotes" know \\n \\t \\r \\" \\\\; a `$` has no meaning here.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            column = len(line) - len(line.lstrip()) + 1
            report.add((), Mark(number, column), "expected NAME=VALUE", "a line that is a comment begins with #")
            continue
        value = _value(line[match.end() :])
        if value is None:
            mark = Mark(number, match.end() + 1)
            report.add((match["name"],), mark, "a quote is not closed, or text follows it", "a value is one line")
        elif "\0" in value:
            report.add((match["name"],), Mark(number, match.end() + 1), "a NUL character cannot be part of a value")
        else:
            found[match["name"]] = value
    return found


def _value(text: str) -> str | None:
    """What stands after the `=`; None when its quotes are wrong."""
    bare = text.lstrip(" \t")
    quote = bare[:1]
    if quote not in ("'", '"'):
        return _COMMENT.sub("", text).strip()
    end = 1
    while end < len(bare) and bare[end] != quote:
        end += 2 if quote == '"' and bare[end] == "\\" else 1
    if end >= len(bare) or not _TAIL.match(bare, end + 1):
        return None
    inner = bare[1:end]
    return inner if quote == "'" else _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[1]), inner)
