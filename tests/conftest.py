"""What all tests need: Hypothesis' profile, Ctrl-C that works, and no skips in CI.

In CI a skipped test is a failure: what it needs is installed there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support import times

# How long an example takes says more of what else runs here than of what is tested.
settings.register_profile("emp", deadline=None)
settings.load_profile("emp")
# A shell in the background ignores Ctrl-C, and so would every process that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {report.longrepr}"
    return report  # type: ignore[return-value]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Schemathesis calls all cases of a test alike, and pytest-xdist runs only one of those that are called alike."""
    for item in items:
        if item.parent is not None and not item.nodeid.endswith(item.name):
            item._id = type(item._id).parse(f"{item.parent.nodeid}::{item.name}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    times.write(config, terminalreporter.stats)
