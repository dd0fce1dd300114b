"""Connectors by kind."""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.connectors.base import CannotLoad, Connector
from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.connectors.simulation import Simulation

KINDS: dict[str, Callable[[str], Connector]] = {"comfyui": ComfyUI, "simulation": Simulation}


def load(kind: str, url: str) -> Connector:
    """A connector of `kind` for the service at `url`. Raises CannotLoad with the reason."""
    make = KINDS.get(kind)
    if make is None:
        raise CannotLoad(f"there is no connector {kind!r}", hint=f"there are: {', '.join(sorted(KINDS))}")
    return make(url)
