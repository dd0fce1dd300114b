"""What an apply asks of Docker hosts before anything starts: whether one that is reached another way is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from emp_orch import settings as settings_files
from emp_orch.control.checks.proposed import Proposal
from emp_orch.errors import EmpError, Unreachable
from emp_orch.layout import Layout
from emp_orch.settings import EngineAddress

if TYPE_CHECKING:
    from emp_orch.runtimes.compose.containers import Container
    from emp_orch.runtimes.compose.engine import Engine

T = TypeVar("T")


async def refuse_other_engines(layout: Layout, proposal: Proposal) -> None:
    """Raise EmpError when a host's new address leads to another engine than the one that its machines run on.

    They would be made a second time, and nobody would know of the first. An old address that does not answer any more
    hinders nothing: such a host is gone, and its name may be given to the next.
    """
    known = settings_files.known(layout)
    before = {h.name: h for h in known.hosts} if known else {}
    moved = [(before[h.name], h) for h in proposal.settings.hosts if h.name in before and before[h.name].url != h.url]
    found = await asyncio.gather(*(asyncio.to_thread(_left_behind, layout, old, new) for old, new in moved))
    lines = [
        f"host {old.name}: {new.url} is another engine than {old.url}, which has {', '.join(machines)}"
        for (old, new), machines in zip(moved, found, strict=True)
        if machines
    ]
    if lines:
        raise EmpError(
            "\n".join(lines),
            hint="give the new engine a name of its own and move machines there, or run `emp down` before",
        )


def _left_behind(layout: Layout, old: EngineAddress, new: EngineAddress) -> list[str]:
    """Machines whose containers the engine at the `old` address has, and that at the `new` one has not."""
    from emp_orch.runtimes.compose.folder import folder_digest
    from emp_orch.runtimes.compose.hosts import MACHINE

    def machines(engine: Engine) -> list[Container]:
        return engine.containers((f"emp.folder={folder_digest(layout)}", MACHINE))

    there = _asked(old, machines)
    if not there:
        return []
    here = {c.id for c in _asked(new, machines, must=True) or ()}
    return sorted({c.labels[MACHINE] for c in there if c.id not in here})


def _asked(host: EngineAddress, question: Callable[[Engine], T], *, must: bool = False) -> T | None:
    """The engine's answer; None when it gives none. Raises EngineAway then when there `must` be one."""
    from emp_orch.runtimes.compose.engine import Engine  # the Docker SDK takes its time to import

    engine = Engine(host)
    try:
        return question(engine)
    except Unreachable:
        if must:
            raise
        return None
    finally:
        engine.close()
