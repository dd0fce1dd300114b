"""Connectors by kind: those of emp, and those of other packages by their entry points in `emp.connectors`.

Only the kind that is asked for is imported.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, cast

from emp_orch.connectors.base import Connector
from emp_orch.options.base import CannotLoad

GROUP = "emp.connectors"

# The same form as the entry points of other packages, so that both are loaded in one way. Not in pyproject.toml: a
# source tree on the path, which is not installed, has them too.
_BUILTIN = {
    "comfyui": "emp_orch.connectors.comfyui:ComfyUI",
    "http": "emp_orch.connectors.http.connector:Http",
    "simulation": "emp_orch.connectors.simulation:Simulation",
}
BUILTIN = EntryPoints(EntryPoint(name, value, GROUP) for name, value in _BUILTIN.items())

_METHODS = ("probe", "run", "cancel", "close")

Make = Callable[[str, Mapping[str, Any]], Connector]


def load(kind: str, url: str, options: Mapping[str, Any] | None = None) -> Connector:
    """A connector of `kind` for the service at `url`. Raises CannotLoad with the reason, whatever its package does."""
    entry = _entry(kind)
    where = f"the connector {kind!r} of {_package(entry)}"
    make = _guarded(where, "cannot be imported", entry.load)
    if not callable(make):
        raise CannotLoad(
            f"{where} is not callable: {entry.value}", hint="name a class, or a function make(url, options)"
        )
    made = _guarded(where, "cannot be made", lambda: cast(Make, make)(url, dict(options or {})))
    if wrong := _lacks(made):
        raise CannotLoad(f"{where} {wrong}", hint="docs/connectors.md shows what a connector has")
    return cast(Connector, made)


def _entry(kind: str) -> EntryPoint:
    found: list[EntryPoint] = [*BUILTIN.select(name=kind), *_installed().select(name=kind)]
    match found:
        case [entry]:
            return entry
        case []:
            near = nearest_to(kind)
            hint = f"did you mean {near!r}? " if near else ""
            raise CannotLoad(f"there is no connector {kind!r} here", hint=f"{hint}there are: {', '.join(_kinds())}")
        case _:
            owners = " and ".join(_package(e) for e in found)
            raise CannotLoad(f"the connector {kind!r} is claimed by {owners}", hint="remove one of the packages")


def nearest_to(kind: str) -> str:
    """The installed connector that `kind` may be a misspelling of; empty when it is installed, or like none."""
    known = _kinds()
    near = [] if kind in known else difflib.get_close_matches(kind, known, n=1)
    return near[0] if near else ""


def _kinds() -> list[str]:
    return sorted({*BUILTIN.names, *_installed().names})


def _installed() -> EntryPoints:
    """What other packages bring. Raises CannotLoad when one of them is damaged on disk."""
    listed: EntryPoints = _guarded("the list of connectors", "cannot be read", lambda: entry_points(group=GROUP))
    return listed


def _package(entry: EntryPoint) -> str:
    """The package that an entry point stands in, with its version."""
    return "emp" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _guarded(where: str, what: str, call: Callable[[], Any]) -> Any:
    """The value of `call`, which is another's code: whatever it raises becomes a CannotLoad."""
    try:
        return call()
    except CannotLoad:
        raise
    except (Exception, SystemExit) as e:  # sys.exit() at import must not end the worker
        words = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        raise CannotLoad(f"{where} {what}: {words}", hint="see that package; a worker's start loads it again") from e


def _lacks(made: object) -> str:
    """What keeps `made` from being a Connector; empty when nothing does."""
    if missing := [name for name in _METHODS if not callable(getattr(made, name, None))]:
        return f"lacks {', '.join(missing)}"
    if plain := [name for name in _METHODS if not inspect.iscoroutinefunction(getattr(made, name))]:
        return f"has methods that are not `async def`: {', '.join(plain)}"
    return "" if isinstance(getattr(made, "kind", None), str) else "lacks kind, its name"
