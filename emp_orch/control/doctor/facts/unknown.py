"""A fact that could not be had."""

from __future__ import annotations

from msgspec import Struct


class Unknown(Struct, frozen=True, kw_only=True):
    """A fact that could not be had, and why. `hint`: the way out, where whoever failed knows one."""

    reason: str
    hint: str = ""
