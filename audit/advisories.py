"""Known faults of what is locked, by pip-audit, which asks an advisory service over the net."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from audit.policy import Policy

WAIT_S = 600
# Of one request.
ANSWER_S = 20


class NotAsked(Exception):
    """The service did not answer for all that is locked; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One known fault of one package. `ids` are all its names."""

    package: str
    version: str
    ids: tuple[str, ...]
    mended_in: tuple[str, ...]


def ask(lock: Path, *, osv: str = "") -> list[Advisory]:
    """Every fault that is known of what `lock` pins and this Python installs.

    `osv` is the URL of a service that speaks OSV's protocol; empty: the package index's own. Raises NotAsked.
    """
    service = ["-s", "osv", "--osv-url", osv] if osv else []
    argv = [sys.executable, "-m", "pip_audit", "-r", str(lock), "--require-hashes", "--disable-pip", "-f", "json"]
    try:
        done = subprocess.run(
            [*argv, "--progress-spinner", "off", "--timeout", str(ANSWER_S), *service],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise NotAsked(f"no answer for {lock.name} within {WAIT_S} s") from e
    if not done.stdout.strip():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotAsked(f"{lock.name}: {said[-1][:300] if said else f'pip-audit ended with {done.returncode}'}")
    return understood(json.loads(done.stdout), lock.name)


def understood(report: dict[str, Any], name: str) -> list[Advisory]:
    """pip-audit's JSON. It passes over what the service does not know, and calls that no fault. Raises NotAsked."""
    dependencies = report["dependencies"]
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    if skipped or not dependencies:
        shown = ", ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
        raise NotAsked(f"{name}: the service knows nothing of {len(skipped)} of {len(dependencies)} packages: {shown}")
    return [
        Advisory(
            package=one["name"],
            version=one["version"],
            ids=tuple(sorted({fault["id"], *fault["aliases"]})),
            mended_in=tuple(fault["fix_versions"]),
        )
        for one in dependencies
        for fault in one["vulns"]
    ]


def faults(found: Sequence[Advisory], policy: Policy, *, today: date) -> list[str]:
    """One line for each that policy.toml does not let pass today, and for each line there that nothing needs."""
    lines, needed = [], set()
    for one in sorted(set(found), key=lambda a: (a.package, a.ids)):
        ignored = next((line for line in policy.ignored if line.id in one.ids), None)
        if ignored is not None:
            needed.add(ignored.id)
            if today <= ignored.until:
                continue
        way = f"mended in {', '.join(one.mended_in)}" if one.mended_in else "no version mends it yet"
        late = f"; policy.toml let it pass until {ignored.until}" if ignored is not None else ""
        lines.append(f"{one.package} {one.version}: {' '.join(one.ids)}: {way}{late}")
    gone = [line.id for line in policy.ignored if line.id not in needed]
    return lines + [f"policy.toml lets {name} pass, which nothing has any more: take it out" for name in gone]
