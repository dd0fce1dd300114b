"""`connector_options` of the `comfyui` connector; docs/comfyui.md describes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.options.base import WrongOption, only
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


_wrong = partial(WrongOption, "comfyui")
_KNOWN = ("tidy",)
_OF_TIDY = {"keep": "keep_s", "most": "most_bytes", "leftovers": "leftovers_s"}


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises WrongOption, which names the option that is wrong."""
    only("comfyui", given, _KNOWN)
    tidy = given.get("tidy", True)
    match tidy:
        case True:
            return Options()
        case False:
            return Options(tidy=None)
        case dict():
            only("comfyui", tidy, _OF_TIDY, where="tidy.")
            return Options(tidy=msgspec.convert({_OF_TIDY[n]: _value(n, v) for n, v in tidy.items()}, Tidy))
        case _:
            raise _wrong("tidy", "does not fit", "write {keep: 10m, most: 10GiB}, true or false", found=tidy)


def _value(name: str, text: Any) -> float | int:
    wanted = "a size, as 10GiB" if name == "most" else "a duration, as 10m"
    try:
        value = size(text) if name == "most" else seconds(text)
    except (TypeError, ValueError):
        value = None
    if value is None:
        raise _wrong(f"tidy.{name}", "does not fit", f"write {wanted}", found=text)
    return value
