"""What a run is given: a claim, its connector, and where files come from and go to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emp_orch.connectors.base import Connector
from emp_orch.store.artifacts.previews import Previews
from emp_orch.store.queue.claim import Claimed, RunRef
from emp_orch.store.redis.client import redacted
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.files.inputs import Inputs
from emp_orch.worker.files.store import Saves


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One claim, the connector it runs on with its binding, where its inputs come from and its outputs go.

    `machine`: the folder of the worker's machine, where word of a service's end is left. `earlier`: a run of this job
    whose end nobody recorded; what became of it is asked before the job is run again. `folders`: where the service and
    the worker write, as far as that is of this host.
    """

    claim: Claimed
    connector: Connector
    binding: ServiceBinding
    artifacts: Saves
    earlier: RunRef | None = None
    machine: Path | None = None
    previews: Previews | None = None
    inputs: Inputs | None = None
    folders: tuple[Path, ...] = ()

    def named(self, ref: str) -> RunRef:
        """What is recorded of a run that the service calls `ref`; a login in the URL is not."""
        return RunRef(connector=self.binding.connector, url=redacted(self.binding.url), ref=ref)
