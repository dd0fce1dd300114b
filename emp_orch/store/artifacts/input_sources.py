"""Where the content of a job's input is: an asset, or an output of an earlier job of the same customer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import InputSource, Job, Output
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.store import Artifacts


class NotGiven(EmpError):
    """An input that names what this job may not have, or what is not there. It will not be otherwise later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """`read`: the bytes from one place to before another. Raises NoSuchAsset, NoSuchArtifact, CannotRead."""

    size: int
    sha256: str
    read: Callable[[int, int], AsyncIterator[bytes]]

    def whole(self) -> AsyncIterator[bytes]:
        return self.read(0, self.size)


class InputSources:
    """What the store and the queue know of inputs. `job_of`: a job by its id; raises NoSuchJob."""

    def __init__(self, artifacts: Artifacts, assets: Assets, job_of: Callable[[str], Awaitable[Job]]) -> None:
        self._artifacts = artifacts
        self._assets = assets
        self._job_of = job_of

    async def find(self, source: InputSource, job: Job) -> Content:
        """What `source`, an input of `job` that is no URL, names.

        Raises NotGiven, NoSuchJob, NoSuchAsset, NoSuchArtifact, CannotRead.
        """
        if source.asset:
            size, asset = await self._assets.size(source.asset), source.asset
            return Content(size=size, sha256=asset.removeprefix("sha256:"), read=partial(self._of_asset, asset))
        output = await self._output(source, job)
        await self._artifacts.find(source.job, output)
        return Content(size=output.size, sha256=output.sha256, read=partial(self._of_output, source.job, output))

    def _of_asset(self, asset: str, start: int, stop: int) -> AsyncIterator[bytes]:
        return self._assets.read(asset, start=start, stop=stop)

    def _of_output(self, job_id: str, output: Output, start: int, stop: int) -> AsyncIterator[bytes]:
        return self._artifacts.read(job_id, output, start=start, stop=stop)

    async def _output(self, source: InputSource, job: Job) -> Output:
        other = await self._job_of(source.job)
        if other.requirements.customer != job.requirements.customer:
            raise NotGiven(f"job {source.job} is not of this job's customer")
        if other.status is not JobStatus.COMPLETED:
            raise NotGiven(f"job {source.job} is {other.status}, and has no outputs to give")
        for output in other.result.outputs if other.result else ():
            if output.name == source.output:
                return output
        raise NotGiven(f"job {source.job} made no {source.output}")
