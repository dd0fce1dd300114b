"""The input files of a job, looked up or fetched before its run, for its connector to read."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import IO

from emp_orch.connectors.base import InputFile
from emp_orch.errors import EmpError
from emp_orch.jobs.model import InputSource, Job, Output
from emp_orch.jobs.states import JobStatus
from emp_orch.store.artifacts import Artifacts, CannotRead, NoSuchArtifact
from emp_orch.store.assets import Assets, NoSuchAsset, content_type_of
from emp_orch.store.connect import within
from emp_orch.store.queue import NoSuchJob, Queue
from emp_orch.worker.input_urls import CannotFetch, UrlRules, fetch, kept_in_words
from emp_orch.worker.state import AWAY

# Tells whoever watches the job what is being fetched.
Tell = Callable[[str], Awaitable[None]]

_CHUNK = 512 * 1024
_RETRY_S = 0.5


class Inputs:
    """Where a worker gets the input files of jobs from."""

    def __init__(self, artifacts: Artifacts, assets: Assets, queue: Queue, rules: UrlRules) -> None:
        self._artifacts = artifacts
        self._assets = assets
        self._queue = queue
        self._rules = rules

    @asynccontextmanager
    async def of(self, job: Job, tell: Tell) -> AsyncIterator[Mapping[str, InputFile]]:
        """The inputs of `job` by their names, readable within the block. Raises CannotFetch, which names the input."""
        with ExitStack() as open_:
            found: dict[str, InputFile] = {}
            for name, source in job.inputs.items():
                await tell(f"fetching {name}")
                try:
                    found[name] = await self._one(name, source, job, open_)
                except CannotFetch as e:
                    raise CannotFetch(f"input {name}: {e.message}", retryable=e.retryable) from e
                except (NoSuchAsset, CannotRead) as e:
                    raise CannotFetch(f"input {name}: {_whole(e)}", retryable=True) from e
                except (NoSuchJob, NoSuchArtifact) as e:
                    raise CannotFetch(f"input {name}: {_whole(e)}", retryable=False) from e
            yield found

    async def _one(self, name: str, source: InputSource, job: Job, open_: ExitStack) -> InputFile:
        if source.asset:
            size = await self._assets.size(source.asset)
            return _file(name, size, partial(self._assets.read, source.asset))
        if source.url:
            # Without a name: it is gone with us, however we end.
            with kept_in_words():
                file: IO[bytes] = tempfile.TemporaryFile(prefix="emp-input-")  # noqa: SIM115
            open_.callback(_close, file)
            return _file(name, await fetch(source.url, file, self._rules), partial(_again, file))
        output = await self._output(source, job)
        await self._artifacts.find(source.job, output)
        return _file(name, output.size, partial(self._artifacts.read, source.job, output))

    async def _output(self, source: InputSource, job: Job) -> Output:
        """The output of an earlier job of the same customer. Raises NoSuchJob, CannotFetch."""
        other = await self._job(source.job)
        if other.requirements.customer != job.requirements.customer:
            raise CannotFetch(f"job {source.job} is not of this job's customer", retryable=False)
        if other.status is not JobStatus.COMPLETED:
            raise CannotFetch(f"job {source.job} is {other.status}, and has no outputs to give", retryable=False)
        for output in other.result.outputs if other.result else ():
            if output.name == source.output:
                return output
        raise CannotFetch(f"job {source.job} made no {source.output}", retryable=False)

    async def _job(self, job_id: str) -> Job:
        while True:
            try:
                async with within():
                    return await self._queue.get(job_id)
            except AWAY:
                await asyncio.sleep(_RETRY_S)


def _whole(e: EmpError) -> str:
    return f"{e.message}; {e.hint}" if e.hint else e.message


def _file(name: str, size: int, read: Callable[[], AsyncIterator[bytes]]) -> InputFile:
    return InputFile(name=name, size=size, content_type=content_type_of(name), read=read)


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what it holds back is of no use any more
        file.close()


async def _again(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The file from its beginning."""
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
