"""How jobs are to be submitted, one or a file of them; and a warning of services that the fleet does not have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from emp_orch.cli.jobs.access import Access

MAX_WARNED = 10


class How:
    """What is wanted beside the jobs. `start`, `once`: of a file, the number of its first job that is to be queued, and
    whether ids are made from what jobs say. `sent` once something may be queued.
    """

    def __init__(
        self, *, folder: Path, wait: bool, timeout_s: float | None, as_json: bool, start: int, once: bool
    ) -> None:
        self.folder = folder
        self.wait = wait
        self.timeout_s = timeout_s
        self.as_json = as_json
        self.start = start
        self.once = once
        self.sent = False


async def warn_of_strangers(access: Access, services: Iterable[str], known: set[str]) -> None:
    """Say on stderr which services the applied fleet does not have; `known` remembers what was said."""
    import difflib

    new = sorted(set(services) - known)
    if not new:
        return
    known.update(new)
    there = (await access.services.now()).connectors
    for name in [n for n in new if there and n not in there][:MAX_WARNED]:
        near = difflib.get_close_matches(name, there, n=1)
        hint = f" (did you mean {near[0]}?)" if near else f" (it has {', '.join(there)})"
        click.echo(f"emp: the applied fleet has no service {name!r}{hint}; jobs for it wait until it has", err=True)
