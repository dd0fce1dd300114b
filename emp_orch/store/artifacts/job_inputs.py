"""Inputs of jobs before these are queued: what a job brings becomes an asset, and what it names is there.

So a job's record holds names and digests only, and a file that is gone is told to who submits, not to a worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from msgspec.structs import replace

from emp_orch.errors import EmpError
from emp_orch.jobs.document.input_hosts import refusal
from emp_orch.jobs.document.inputs import Content, GivenInput, LocalFile
from emp_orch.jobs.document.model import InputSource
from emp_orch.jobs.document.submission import BadSubmission, Submission
from emp_orch.settings import InputLimits
from emp_orch.store.artifacts.assets import Asset, Assets, NoSuchAsset
from emp_orch.store.queue.submit import new_id

# Keeps a file of whoever submits: its name in the job, and the file.
Upload = Callable[[str, LocalFile], Awaitable[Asset]]


class InputsGone(EmpError):
    """Jobs name assets that are not kept."""


class JobInputs:
    """What stands between a checked job and the queue. `limits` None: the fleet was applied by an older emp."""

    def __init__(self, assets: Assets, limits: InputLimits | None) -> None:
        self._assets = assets
        self._limits = limits

    async def placed(self, jobs: Sequence[Submission], upload: Upload | None = None) -> list[Submission]:
        """The jobs, each of whose inputs is an asset that is kept, a URL, or another job's output.

        A job without inputs stays as it is; one with inputs has an id now. `upload` keeps what is a LocalFile.
        Raises BadSubmission, InputsGone (both name every input), TooLarge, CannotStore.
        """
        if not any(job.inputs for job in jobs):
            return list(jobs)
        if problems := [f"{where}: {why}" for where, given in _each(jobs) if (why := self._fault(given))]:
            raise BadSubmission(problems)
        await self._there(jobs)
        return [await self._one(job, upload) if job.inputs else job for job in jobs]

    def _fault(self, given: GivenInput) -> str:
        if self._limits is None:
            return "this fleet was applied by an emp that knew no input files; run `emp apply` again"
        if isinstance(given, Content) and len(given.data) > self._limits.max_bytes:
            return f"larger than {self._limits.max_bytes} bytes, which is jobs.inputs.max_size"
        if isinstance(given, InputSource) and given.url:
            return refusal(given.url, self._limits.hosts)
        return ""

    async def _there(self, jobs: Sequence[Submission]) -> None:
        """Raises InputsGone unless every asset that is named is kept; from now on for a while."""
        wanted = {g.asset for _, g in _each(jobs) if isinstance(g, InputSource) and g.asset}
        gone = {asset for asset in wanted if not await self._assets.touch(asset)}
        named = [f"{where}: {g.asset}" for where, g in _each(jobs) if isinstance(g, InputSource) and g.asset in gone]
        if named:
            more = f" and {len(named) - 20} more" if len(named) > 20 else ""
            raise InputsGone(
                f"no such asset: {'; '.join(named[:20])}{more}",
                hint="upload it (again) to /api/assets; jobs.inputs.keep says how long one is kept",
            )

    async def _one(self, job: Submission, upload: Upload | None) -> Submission:
        inputs = {name: await self._kept(name, given, upload) for name, given in job.inputs.items()}
        job_id = job.id or new_id()
        assets = [source.asset for source in inputs.values() if source.asset]
        if assets and (gone := await self._assets.named(job_id, assets)):
            raise InputsGone(f"no such asset: {', '.join(gone)}", hint="it was removed just now; upload it again")
        return replace(job, id=job_id, inputs=inputs)

    async def _kept(self, name: str, given: GivenInput, upload: Upload | None) -> InputSource:
        match given:
            case Content(data=data):
                most = self._limits.max_bytes if self._limits else 0
                return _source(await self._assets.save(name, _once(data), most=most))
            case LocalFile():
                if upload is None:
                    raise BadSubmission([f"inputs.{name}.file: only `emp submit` reads files"])
                return _source(await upload(name, given))
            case InputSource(asset=asset) if asset:
                try:
                    return replace(given, size=await self._assets.size(asset))
                except NoSuchAsset as e:
                    raise InputsGone(f"no such asset: inputs.{name}: {e.message}", hint=e.hint) from e
            case InputSource():
                return given


def _each(jobs: Sequence[Submission]) -> Iterator[tuple[str, GivenInput]]:
    """Every input and where it stands."""
    for n, job in enumerate(jobs):
        head = f"jobs[{n}]." if len(jobs) > 1 else ""
        for name, given in job.inputs.items():
            yield f"{head}inputs.{name}", given


def _source(asset: Asset) -> InputSource:
    return InputSource(asset=asset.asset, size=asset.size)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
