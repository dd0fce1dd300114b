"""A run's own mark in the names that its workflow gives to files, so that no two runs write one file.

Two ComfyUIs that share an output folder both take "the highest counter there + 1" of a `filename_prefix`: the last
writer wins, and the other's run finds that picture under its own name (ADR 0014).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from emp_orch.connectors.comfyui.server.protocol import Workflow

# What a saving node calls the beginning of its files' names; ComfyUI's own and nearly all others.
PREFIX = "filename_prefix"
# Longer names are left as they are: with the mark, a counter and an ending a file system takes 255 bytes.
MAX_NAME_BYTES = 180

_MARK = re.compile(r"emp-[0-9a-f]{16}-")
_MARK_BYTES = re.compile(_MARK.pattern.encode())
MARK_BYTES = len("emp--") + 16
# A file that holds more is a list of files, and none that a run wrote its workflow into.
MAX_MARKS = 1_000
# What a node fills in itself, as %date:yyyy/MM%: a separator in there is none of a path.
_FILLED = re.compile(r"%[^%]*%")


def mark_of(prompt_id: str) -> str:
    """The mark of the run that is called so."""
    return f"emp-{hashlib.sha256(prompt_id.encode()).hexdigest()[:16]}-"


def marked(workflow: Workflow, mark: str) -> Workflow:
    """`workflow` with `mark` in each literal prefix.

    A prefix that another node gives is left alone. Where there is no other, the mark is a note beside the first node:
    ComfyUI writes the workflow into its pictures, which then tell whose they are.
    """
    found = {node_id: _node_marked(node, mark) for node_id, node in workflow.items()}
    if not any(found[node_id] is not workflow[node_id] for node_id in found):
        for node_id, node in workflow.items():
            if isinstance(node, dict):
                found[node_id] = dict(node, _meta=dict(_dict(node.get("_meta")), emp=mark))
                break
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _node_marked(node: Any, mark: str) -> Any:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    prefix = inputs.get(PREFIX) if isinstance(inputs, dict) else None
    if not isinstance(prefix, str):
        return node
    with_mark = prefix_marked(prefix, mark)
    return node if with_mark == prefix else dict(node, inputs=dict(_dict(inputs), **{PREFIX: with_mark}))


def prefix_marked(prefix: str, mark: str) -> str:
    """`sub/name` as `sub/MARKname`: folders stay what they are. A mark of an earlier run gives way."""
    prefix = _MARK.sub("", prefix)
    hidden = _FILLED.sub(lambda m: "%" * len(m.group()), prefix)
    at = hidden.rstrip("/").rfind("/") + 1
    return prefix if len(prefix[at:].encode()) > MAX_NAME_BYTES else prefix[:at] + mark + prefix[at:]


def plain(name: str) -> str:
    """A file's name as the workflow gave it."""
    return _MARK.sub("", name, count=1)


def is_marked(name: str) -> bool:
    """Whether a run of some job wrote the file of that name."""
    return _MARK.match(name) is not None


def marks_in(value: object) -> frozenset[str]:
    """Every mark that stands in `value`, JSON values of any depth."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return frozenset()
    return frozenset(m.decode() for m in _MARK_BYTES.findall(text))


class Marks:
    """Reads the marks in a file that passes by: ComfyUI writes a picture's workflow into it."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._end = b""

    def see(self, chunk: bytes) -> None:
        if len(self.found) < MAX_MARKS:
            self.found.update(m.group().decode() for m in islice(_MARK_BYTES.finditer(self._end + chunk), MAX_MARKS))
        self._end = (self._end + chunk)[-(MARK_BYTES - 1) :]


def owner(names: Iterable[str], own: str, ignored: frozenset[str]) -> str | None:
    """Whose a file is that holds these marks: `own`, another run's, or None when they do not tell."""
    names = [n for n in names if n == own or n not in ignored]
    return own if own in names else min(names, default=None)
