"""Workflows that need no weights, and what is looked for in the pictures they make."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

from emp_orch.services.simulation import png

Workflow = dict[str, dict[str, Any]]
# Each its own colour, so that nothing is answered from a cache unless a test wants that.
_COLORS = itertools.count(0x102030, 0x010305)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def a_color() -> int:
    return next(_COLORS) % 0x1000000


def image(color: int, *, batch: int = 1, side: int = 32) -> dict[str, Any]:
    return node("EmptyImage", width=side, height=side, batch_size=batch, color=color)


def saved(color: int, *, batch: int = 1, prefix: str = "test", side: int = 32) -> Workflow:
    """Pictures of one colour."""
    return {
        "1": image(color, batch=batch, side=side),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def test_node(name: str, *, then: str = "SaveImage", color: int | None = None, **inputs: Any) -> Workflow:
    """A picture goes through a test node, and is saved behind it."""
    behind = {"filename_prefix": "test"} if then == "SaveImage" else {}
    return {
        "1": image(a_color() if color is None else color),
        "2": node(name, images=["1", 0], **inputs),
        "3": node(then, images=["2", 0], **behind),
    }


test_node.__test__ = False  # type: ignore[attr-defined]


def first_color_of(content: bytes) -> int | None:
    """The colour of a PNG's first pixel, whatever filter its line has; None for an empty file."""
    if not content:
        return None
    packed, at = bytearray(), len(png.SIGNATURE)
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        at += 12 + length
    return int.from_bytes(zlib.decompressobj().decompress(bytes(packed), 4)[1:], "big")


def color_of(content: bytes) -> int:
    """The one colour of a PNG. Raises when there are two."""
    picture = png.decode(content)
    colors = {picture.rgb[i : i + 3] for i in range(0, len(picture.rgb), 3)}
    (only,) = colors
    return int.from_bytes(only, "big")
