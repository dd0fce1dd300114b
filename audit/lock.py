"""What a lock says, as `uv pip compile --generate-hashes` writes it. The standard library alone: a build reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "requirements.lock"
DEVELOPERS = ROOT / "requirements-dev.lock"

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*\\?$")
_HASH = re.compile(r"\s+--hash=sha256:(?P<digest>[0-9a-f]{64})\s*\\?$")
_VIA = re.compile(r"\s+#(?: via)?\s*(?P<by>[A-Za-z0-9._-]*)(?: \(pyproject\.toml\))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One pinned distribution. `digests`: SHA-256 of each of its files; `marker`: where it is needed, empty: always."""

    name: str
    version: str
    marker: str
    digests: tuple[str, ...]
    needed_by: tuple[str, ...]


def normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> tuple[Locked, ...]:
    """In the file's order. Raises ValueError for a line that it does not know, and for a pin without a digest."""
    found: list[Locked] = []
    pin: re.Match[str] | None = None
    digests: list[str] = []
    by: list[str] = []

    def whole() -> None:
        if pin is None:
            return
        if not digests:
            raise ValueError(f"{path.name}: {pin['name']} has no digest")
        marker = pin["marker"] or ""
        found.append(
            Locked(
                name=normal(pin["name"]),
                version=pin["version"],
                marker=marker,
                digests=tuple(digests),
                needed_by=tuple(normal(name) for name in by),
            )
        )

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if (start := _PIN.match(line)) is not None:
            whole()
            pin, digests, by = start, [], []
        elif (digest := _HASH.match(line)) is not None:
            digests.append(digest["digest"])
        elif (via := _VIA.match(line)) is not None:
            by += [via["by"]] if via["by"] else []
        elif line.strip():
            raise ValueError(f"{path.name}:{number}: not a line of a lock: {line.strip()!r}")
    whole()
    return tuple(found)
