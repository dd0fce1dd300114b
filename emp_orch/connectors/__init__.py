"""The worker's adapters to services: one file each, one Protocol. What a connector of another package needs is here."""

from emp_orch.connectors.base import Connector, Recovers, Run, RunFailed, StillRuns
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Job, Output, Progress, Result
from emp_orch.options.base import CannotLoad

__all__ = [
    "CannotLoad",
    "Connector",
    "ConnectorReport",
    "ConnectorStatus",
    "Job",
    "Output",
    "Progress",
    "Recovers",
    "Result",
    "Run",
    "RunFailed",
    "StillRuns",
]
