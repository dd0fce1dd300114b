"""Markdown from text that others wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_CODE = re.compile(r"(`[^`]*`)")


def prose(text: str) -> str:
    """`text` as one paragraph that reads as it was written: what is not code has no markup."""
    words = " ".join(text.split())
    return "".join(
        part
        if part.startswith("`") and part.endswith("`") and len(part) > 1
        else re.sub(r"([\\*_<>\[\]#{}])", r"\\\1", part)
        for part in _CODE.split(words)
    )


def code(text: str) -> str:
    """`text` as code within a line, whatever backticks it has."""
    if not text:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def value(what: Any) -> str:
    """A value of YAML or JSON as code."""
    return code(json.dumps(what, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table and a blank one; nothing where there is no row."""
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    if not body:
        return []
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]
