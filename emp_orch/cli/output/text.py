"""Plain tables and ages for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from emp_orch.plaintext import one_line


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the last is not padded. Other people's words are safe in it."""
    lines = [tuple(head), *(tuple(one_line(str(c)) for c in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def age(ms: int | None) -> str:
    """A duration as a person says it: 800ms, 12s, 5m10s, 3h20m, 2d4h; `-` when unknown."""
    if ms is None:
        return "-"
    seconds = ms // 1000
    if seconds < 1:
        return f"{max(0, ms)}ms"
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size}{unit}{rest}{below}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"
