"""The scripts that the worker packages in `.emp/packages` send to Redis: each apply leaves those of its emp beside its
package, so that a later one can load them for whoever still runs from that.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.layout import Layout
from emp_orch.settings import write_private

# Files that stay, the newest of them: a package may be pinned longer than it is served.
KEPT = 10


class _Kept(Struct, frozen=True, kw_only=True):
    """`texts` are those for keys that begin with `prefix`."""

    prefix: str
    texts: tuple[str, ...]


def keep(layout: Layout, digest: str, prefix: str, texts: tuple[str, ...]) -> None:
    """Leave the scripts of the package with that digest; the oldest of others go. Raises OSError."""
    content = msgspec.json.encode(_Kept(prefix=prefix, texts=texts))
    path = layout.package_scripts(digest)
    if path.is_file() and path.read_bytes() == content:
        path.touch()
    else:
        write_private(path, content)
    for old in _newest_first(layout)[KEPT:]:
        old.unlink(missing_ok=True)


def brought(layout: Layout, prefix: str) -> dict[str, tuple[str, ...]]:
    """Package → its scripts, of those that are known for this prefix."""
    read = ((path.stem, _texts(path, prefix)) for path in _newest_first(layout)[:KEPT])
    return {digest: texts for digest, texts in read if texts is not None}


def is_brought(layout: Layout, prefix: str, digest: str) -> bool:
    """Whether those of one package are known for this prefix: reads that file alone."""
    return _texts(layout.package_scripts(digest), prefix) is not None


def _texts(path: Path, prefix: str) -> tuple[str, ...] | None:
    """None also for a file that does not fit: as if it were not there, what needs it may send its own."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept.texts if kept.prefix == prefix else None


def _newest_first(layout: Layout) -> list[Path]:
    try:
        return sorted(layout.packages.glob("*.scripts"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    except OSError:  # one of them went this moment: whoever asks asks again
        return []
