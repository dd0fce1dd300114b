"""Files that others wrote and emp carries: each has a manifest's word for its package, version, licence and SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from audit.lock import ROOT

PAGE = ROOT / "emp_orch" / "monitor" / "static" / "vendor"
TESTS = ROOT / "tests" / "browser" / "vendor"
DOCS = ROOT / "docs_site" / "static" / "vendor"
MANIFEST = "vendored.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendored:
    """One file, as the manifest has it."""

    file: Path
    package: str
    version: str
    licence: str
    sha256: str


def vendored(folder: Path) -> tuple[Vendored, ...]:
    """What the manifest of `folder` names. Raises OSError, ValueError or KeyError where it does not say all of it."""
    return tuple(
        Vendored(
            file=folder / name,
            package=about["package"],
            version=about["version"],
            licence=about["licence"],
            sha256=about["sha256"],
        )
        for name, about in json.loads((folder / MANIFEST).read_text(encoding="utf-8")).items()
    )


def faults(folder: Path) -> list[str]:
    """What in `folder` the manifest does not name, or names with another digest, or without a licence beside it."""
    try:
        named = vendored(folder)
    except (OSError, ValueError, KeyError) as e:
        return [f"{folder / MANIFEST}: {e!r}"]
    texts = {f"{one.package}.LICENSE" for one in named}
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    found = [f"{folder / name}: not in {MANIFEST}" for name in sorted(there - texts - {one.file.name for one in named})]
    found += [f"{folder / name}: is missing" for name in sorted(texts - there)]
    for one in named:
        if one.file.name not in there:
            found.append(f"{one.file}: is missing")
        elif (digest := hashlib.sha256(one.file.read_bytes()).hexdigest()) != one.sha256:
            found.append(f"{one.file}: SHA-256 is {digest}, and {MANIFEST} has {one.sha256}")
    return found
