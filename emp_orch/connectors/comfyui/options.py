"""`connector_options` of the `comfyui` connector, checked when a worker starts; docs/comfyui.md describes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import CannotLoad
from emp_orch.units import seconds, size


class Tidy(Struct, frozen=True, kw_only=True):
    """What was copied into the artifact store stays in the service's folder for `keep_s`, at most `most_bytes` of it.

    Ten minutes: a worker that is lost is asked for within its lease. What a lost one left is removed after
    `leftovers_s`: a day, longer than a job may run.
    """

    keep_s: float = 600.0
    most_bytes: int = 10 * 2**30
    leftovers_s: float = 86_400.0


class Options(Struct, frozen=True, kw_only=True):
    """`tidy` None: nothing is ever deleted."""

    tidy: Tidy | None = Tidy()


_KNOWN = ("tidy",)
_OF_TIDY = {"keep": "keep_s", "most": "most_bytes", "leftovers": "leftovers_s"}


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises CannotLoad, which names the option that is wrong."""
    _only(given, _KNOWN, "")
    tidy = given.get("tidy", True)
    match tidy:
        case True:
            return Options()
        case False:
            return Options(tidy=None)
        case dict():
            _only(tidy, _OF_TIDY, "tidy.")
            return Options(tidy=msgspec.convert({_OF_TIDY[n]: _value(n, v) for n, v in tidy.items()}, Tidy))
        case _:
            raise _wrong("tidy", f"is {tidy!r}", "write {keep: 10m, most: 10GiB}, true or false")


def _value(name: str, text: Any) -> float | int:
    wanted = "a size, as 10GiB" if name == "most" else "a duration, as 10m"
    try:
        value = size(text) if name == "most" else seconds(text)
    except (TypeError, ValueError):
        value = None
    if value is None:
        raise _wrong(f"tidy.{name}", f"is {text!r}", f"write {wanted}")
    return value


def _only(given: Mapping[str, Any], known: Any, where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"there are: {', '.join(known)}"
            raise _wrong(f"{where}{name}", "is unknown", hint)


def _wrong(name: str, what: str, hint: str) -> CannotLoad:
    return CannotLoad(f"connector_options of the comfyui connector: {name} {what}", hint=hint)
