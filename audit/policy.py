"""What lets a finding pass, as policy.toml says."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

POLICY = Path(__file__).with_name("policy.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The licence (SPDX) that somebody read in a package's own files."""

    version: str
    licence: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A known fault that does not reach emp; from the day after `until` on it counts again."""

    id: str
    reason: str
    until: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    allowed: frozenset[str]
    read: Mapping[str, Read]
    ignored: tuple[Ignored, ...]


def load(path: Path = POLICY) -> Policy:
    """Raises OSError, ValueError, and KeyError or TypeError where a field is missing or is one too many."""
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    licences = said["licences"]
    ignored = tuple(Ignored(**one) for one in said.get("ignored", ()))
    for one in ignored:
        if not one.reason.strip():
            raise ValueError(f"{path.name}: {one.id} is ignored without a reason")
    return Policy(
        allowed=frozenset(licences["allowed"]),
        read={name: Read(**about) for name, about in licences["read"].items()},
        ignored=ignored,
    )
