"""The input files of a job, looked up or fetched before its run, for its connector to read."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import IO, Protocol

from emp_orch.connectors.base import InputFile
from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import InputSource, Job
from emp_orch.store.artifacts.assets import Assets, NoSuchAsset, content_type_of
from emp_orch.store.artifacts.input_sources import Content, InputSources, NotGiven
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotRead, NoSuchArtifact
from emp_orch.store.queue.claim import Claimed
from emp_orch.store.queue.submit import NoSuchJob, Queue
from emp_orch.store.redis.client import within
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import UrlRules
from emp_orch.worker.files.input_urls import CannotFetch, fetch, kept_in_words
from emp_orch.worker.limits import FILE_CHUNK

# Tells whoever watches the job what is being fetched.
Tell = Callable[[str], Awaitable[None]]

_RETRY_S = 0.5


class Finds(Protocol):
    """Finds the content of an input that is no URL."""

    async def find(self, name: str, source: InputSource, job: Job, run: str) -> Content:
        """Raises NotGiven, NoSuchJob, NoSuchAsset, NoSuchArtifact, CannotRead."""


class StoredInputs:
    """What this worker finds itself, in the store."""

    def __init__(self, artifacts: Artifacts, assets: Assets, queue: Queue) -> None:
        self._sources = InputSources(artifacts, assets, self._job)
        self._queue = queue

    async def find(self, name: str, source: InputSource, job: Job, run: str) -> Content:
        return await self._sources.find(source, job)

    async def _job(self, job_id: str) -> Job:
        while True:
            try:
                async with within():
                    return await self._queue.get(job_id)
            except AWAY:
                await asyncio.sleep(_RETRY_S)


class Inputs:
    """Where a worker gets the input files of jobs from."""

    def __init__(self, stored: Finds, rules: UrlRules) -> None:
        self._stored = stored
        self._rules = rules

    @asynccontextmanager
    async def of(self, claim: Claimed, tell: Tell) -> AsyncIterator[Mapping[str, InputFile]]:
        """Its job's inputs by their names, readable within the block. Raises CannotFetch, which names the input."""
        with ExitStack() as open_:
            found: dict[str, InputFile] = {}
            for name, source in claim.job.inputs.items():
                await tell(f"fetching {name}")
                try:
                    found[name] = await self._one(name, source, claim, open_)
                except CannotFetch as e:
                    raise CannotFetch(f"input {name}: {e.message}", retryable=e.retryable) from e
                except (NoSuchAsset, CannotRead) as e:
                    raise CannotFetch(f"input {name}: {_whole(e)}", retryable=True) from e
                except (NotGiven, NoSuchJob, NoSuchArtifact) as e:
                    raise CannotFetch(f"input {name}: {_whole(e)}", retryable=False) from e
            yield found

    async def _one(self, name: str, source: InputSource, claim: Claimed, open_: ExitStack) -> InputFile:
        if source.url:
            # Without a name: it is gone with us, however we end.
            with kept_in_words():
                file: IO[bytes] = tempfile.TemporaryFile(prefix="emp-input-")  # noqa: SIM115
            open_.callback(_close, file)
            return _file(name, await fetch(source.url, file, self._rules), partial(_again, file))
        content = await self._stored.find(name, source, claim.job, claim.run)
        return _file(name, content.size, content.whole)


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
    while chunk := await asyncio.to_thread(file.read, FILE_CHUNK):
        yield chunk
