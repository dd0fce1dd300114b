"""Under which licence each package of the lock is, by its installed metadata, and whether emp may need it.

Source: https://packaging.python.org/en/latest/specifications/core-metadata/#license-expression
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import metadata
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing
from packaging.markers import Marker

from audit.lock import Locked
from audit.policy import Policy
from audit.vendored import Vendored

_SPDX = get_spdx_licensing()
# A classifier that names a family (`BSD License`) means the member that asks for most: all of them are allowed or none.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def faults(locked: Iterable[Locked], policy: Policy) -> list[str]:
    """One line for each package whose licence is unknown or not allowed, or that is not here as locked."""
    found, unused = [], set(policy.read)
    for one in locked:
        unused.discard(one.name)
        said = _licence(one, policy)
        if said.startswith("!"):
            found.append(f"{one.name} {one.version}: {said[1:]}")
        elif not is_allowed(said, policy.allowed):
            found.append(f"{one.name} {one.version}: {said} is not among the licences that policy.toml allows")
    return found + [f"{name}: policy.toml has its licence, and no lock has it" for name in sorted(unused)]


def faults_vendored(files: Iterable[Vendored], policy: Policy) -> list[str]:
    return [
        f"{one.package} {one.version}: {one.licence} is not among the licences that policy.toml allows"
        for one in files
        if not is_allowed(one.licence, policy.allowed)
    ]


def is_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether an SPDX expression can be met by licences of `allowed`: one side of OR, both of AND. An exception (WITH)
    must be allowed as it is written.
    """
    try:
        parsed = _SPDX.parse(expression, validate=True)
    except ExpressionError:
        return False
    return parsed is not None and _is_met(parsed, allowed)


def said_by(about: metadata.PackageMetadata) -> str:
    """The SPDX expression that a package's metadata comes to; empty where it says none."""
    if expression := about["License-Expression"]:
        return str(expression)
    kinds = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    named = [kind for kind in kinds if kind not in ("OSI Approved", "DFSG approved")]
    if named:
        # Several mean that all may have to be kept.
        return " AND ".join(sorted({_CLASSIFIERS[kind] for kind in named})) if set(named) <= set(_CLASSIFIERS) else ""
    text = str(about["License"] or "").strip()
    return text if text and _is_expression(text) else ""


def _is_expression(text: str) -> bool:
    try:
        return _SPDX.parse(text, validate=True) is not None
    except ExpressionError:
        return False


def _is_met(part: Any, allowed: Collection[str]) -> bool:
    if isinstance(part, _SPDX.OR):
        return any(_is_met(one, allowed) for one in part.args)
    if isinstance(part, _SPDX.AND):
        return all(_is_met(one, allowed) for one in part.args)
    return part.render() in allowed


def _licence(one: Locked, policy: Policy) -> str:
    """An SPDX expression, or `!` and what is wrong."""
    read = policy.read.get(one.name)
    if read is not None:
        if read.version != one.version:
            return f"!policy.toml has the licence of {read.version}: read this version's, and say so there"
        return read.licence
    if one.marker and not Marker(one.marker).evaluate():
        return "!is not needed here, so its metadata is not: read its licence, and put it into policy.toml"
    try:
        there = metadata.distribution(one.name)
    except metadata.PackageNotFoundError:
        return "!is not installed: make check installs what is locked"
    if there.version != one.version:
        return f"!is installed as {there.version}: make check installs what is locked"
    return said_by(there.metadata) or "!says no licence that a program knows: read it, and put it into policy.toml"
