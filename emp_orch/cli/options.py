"""What options take: durations."""

from __future__ import annotations

from typing import Any

import click

from emp_orch import units


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Seconds, as a number or as emp.yaml writes it: 500ms, 60s, 5m, 2h, 7d. The value is a float."""

    name = "duration"

    def __init__(self, *, min: float = 0.0, max: float = units.MOST_S) -> None:  # as click's ranges have it
        self._min = min
        self._max = max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = units.duration(str(value))
        except ValueError:
            self.fail(f"{value!r} is no duration: write seconds, or 500ms, 60s, 5m, 2h, 7d.", param, ctx)
        if not self._min <= found <= self._max:
            self.fail(f"{value} is not in the range {self._min:g} s to {self._max:g} s.", param, ctx)
        return found
