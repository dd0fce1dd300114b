"""One look at a service through its connector, which may be faulty and hang."""

from __future__ import annotations

import asyncio
import logging

from emp_orch.connectors import sanitise
from emp_orch.connectors.base import Connector
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus

log = logging.getLogger("emp.worker")

# For connectors that hang.
PROBE_S = 10.0


async def probed(connector: Connector, service: str) -> ConnectorReport:
    """What the connector says of its service; a faulty connector is in error, the worker is not."""
    try:
        async with asyncio.timeout(PROBE_S):
            report: object = await connector.probe()
        if isinstance(report, ConnectorReport):
            return sanitise.report_of(report)
        detail = f"its probe gave {type(report).__name__} instead of a ConnectorReport"
    except TimeoutError:
        detail = f"its probe took longer than {PROBE_S:g} s"
    except Exception as e:
        log.exception("connector of %s failed to probe", service)
        detail = f"{type(e).__name__}: {e}"
    return sanitise.report_of(ConnectorReport(status=ConnectorStatus.ERROR, detail=detail))
