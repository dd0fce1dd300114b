"""Providers by name: those of emp, and those of other packages by their entry points in `emp.providers`.

Only the one that is asked for is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, cast

from emp_orch.fleet.model.pools import JOIN
from emp_orch.runtimes.providers.base import Make, Making, Provider, ProviderError

GROUP = "emp.providers"

# As with connectors: not in pyproject.toml, since a source tree on the path has them too.
_BUILTIN: dict[str, str] = {
    "command": "emp_orch.runtimes.providers.command.provider:CommandProvider",
    "slurm": "emp_orch.runtimes.providers.slurm.provider:SlurmProvider",
    "swarm": "emp_orch.runtimes.providers.swarm.provider:SwarmProvider",
}
BUILTIN = EntryPoints(EntryPoint(name, value, GROUP) for name, value in _BUILTIN.items())

_METHODS = ("boxes", "create", "remove", "watch", "aclose")


def load(kind: str, making: Making) -> Provider | None:
    """The provider `kind` for one pool; None for `join`, whose boxes somebody else starts. Raises ProviderError."""
    if kind == JOIN:
        return None
    entry = _entry(kind)
    make = _guarded(kind, "cannot be imported", entry.load)
    if not callable(make):
        raise ProviderError(f"the provider {kind!r} is not callable: {entry.value}", hint="name a class, or a function")
    made = _guarded(kind, "cannot be made", lambda: cast(Make, make)(making))
    wrong = [name for name in _METHODS if not inspect.iscoroutinefunction(getattr(made, name, None))]
    if wrong:
        raise ProviderError(f"the provider {kind!r} lacks, as `async def`: {', '.join(wrong)}")
    return cast(Provider, made)


def kinds() -> tuple[str, ...]:
    """All that are installed here."""
    return tuple(sorted({JOIN, *BUILTIN.names, *_installed().names}))


def _entry(kind: str) -> EntryPoint:
    found: list[EntryPoint] = [*BUILTIN.select(name=kind), *_installed().select(name=kind)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ProviderError(f"there is no provider {kind!r} here", hint=f"there are: {', '.join(kinds())}")
    raise ProviderError(f"the provider {kind!r} is claimed by {len(found)} packages", hint="remove one of them")


def _installed() -> EntryPoints:
    listed: EntryPoints = _guarded("", "cannot be listed", lambda: entry_points(group=GROUP))
    return listed


def _guarded(kind: str, what: str, call: Callable[[], Any]) -> Any:
    """The value of `call`, which is another's code: whatever it raises becomes a ProviderError."""
    try:
        return call()
    except ProviderError:
        raise
    except (Exception, SystemExit) as e:
        words = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        raise ProviderError(f"the provider {kind!r} {what}: {words}") from e
