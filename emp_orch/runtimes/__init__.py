"""Start, stop and list machines: one file per runtime behind one Protocol.

Holds no fleet decisions; stops only what it started, by pid and start time.
"""

from __future__ import annotations

from collections.abc import Mapping

from emp_orch.fleet.model import RuntimeKind
from emp_orch.layout import Layout
from emp_orch.runtimes.base import Runtime
from emp_orch.runtimes.external import ExternalRuntime
from emp_orch.runtimes.process import ProcessRuntime
from emp_orch.settings import Settings


def runtimes_of(layout: Layout, settings: Settings | None) -> Mapping[RuntimeKind, Runtime]:
    """Every runtime this emp has, for the fleet in `layout`. A new runtime is one file and one line here."""
    return {RuntimeKind.PROCESS: ProcessRuntime(layout, settings), RuntimeKind.EXTERNAL: ExternalRuntime(layout)}
