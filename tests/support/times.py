"""Where the time of a run went: a line a run of pytest and a line a folder of tests, for the end of `make test`."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

# The file that the lines are added to; without it nothing is written. No process of a test inherits the variable, nor
# does one of pytest-xdist's: who hands out the tests writes for all.
INTO = os.environ.pop("EMP_TEST_TIMES", "")
BEGAN_S = time.monotonic()


def lines(name: str, wall_s: float, reports: Iterable[pytest.TestReport]) -> list[str]:
    """`wall_s` is how long the run took; a folder's seconds are those of its tests, added up over all processes."""
    seconds: dict[str, float] = defaultdict(float)
    tests: Counter[str] = Counter()
    for report in reports:
        folder = "/".join(report.nodeid.split("/")[:2])
        seconds[folder] += report.duration
        tests[folder] += report.when == "teardown"
    whole = f"{wall_s:7.0f} s {tests.total():6} tests  {name}"
    return [whole, *(f"{seconds[f]:14.0f} s {tests[f]:6} tests  {f}" for f in tests if len(tests) > 1)]


def write(config: pytest.Config, stats: dict[str, list[object]]) -> None:
    if not INTO:
        return
    marks = config.option.markexpr
    name = " ".join([*config.args, *([f"-m {marks!r}"] if marks else [])])
    reports = [r for some in stats.values() for r in some if isinstance(r, pytest.TestReport)]
    with Path(INTO).open("a") as file:
        file.writelines(f"{line}\n" for line in lines(name, time.monotonic() - BEGAN_S, reports))
