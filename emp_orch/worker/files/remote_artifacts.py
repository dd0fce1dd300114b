"""The artifact store through the API: for the worker of a machine that does not see the store.

An output is kept on this machine's own disk until the API has it whole: it can be sent again when the API was away.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import InputSource, Job, Output
from emp_orch.jobs.document.outputs import safe_content_type, safe_name, unique_name
from emp_orch.store.artifacts.input_sources import Content, NotGiven
from emp_orch.store.artifacts.run import MAX_OUTPUT_BYTES, too_large
from emp_orch.store.artifacts.url import CannotRead, CannotStore
from emp_orch.worker.files.api_client import AWAY_S, MAX_PAUSE_S, PAUSE_S, ApiClient, Away, RefusedByApi
from emp_orch.worker.limits import FILE_CHUNK

# An output that is not larger never touches the disk.
_SMALL_BYTES = 1024**2
_FOREVER_NO = frozenset({400, 411, 413, 415})


class _Saved(Struct, frozen=True):
    data: Output


class RemoteArtifacts:
    """`folder`: where outputs are kept until they are sent; None: where temporary files are."""

    def __init__(self, client: ApiClient, folder: Path | None = None) -> None:
        self._client = client
        self._folder = folder

    def run(self, job_id: str, run: str) -> RemoteRun:
        return RemoteRun(self._client, self._folder, job_id, run)

    async def check(self) -> None:
        """Whether outputs can be saved. Raises CannotStore with the reason."""
        try:
            async with self._client.request("POST", "/api/work"):
                return
        except EmpError as e:
            raise _cannot_store("outputs cannot be saved", e) from e


class RemoteRun:
    """One run's outputs."""

    def __init__(self, client: ApiClient, folder: Path | None, job_id: str, run: str) -> None:
        self._client = client
        self._folder = folder
        self._path = f"/api/work/{quote(job_id, safe='')}/{quote(run, safe='')}/outputs/"
        self._taken: set[str] = set()

    async def prepare(self) -> None:
        """The API is asked nothing before there is an output."""

    def begin_anew(self) -> None:
        """Have the next files take the names of those that were saved."""
        self._taken.clear()

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        """Save all of `chunks` under a safe, unique form of `name`. Raises CannotStore, and what `chunks` raises."""
        file = unique_name(safe_name(name), self._taken)
        self._taken.add(file.casefold())
        kept = tempfile.SpooledTemporaryFile(max_size=_SMALL_BYTES, dir=str(self._folder) if self._folder else None)  # noqa: SIM115
        try:
            size, digest = await _keep(file, chunks, kept)
            return await self._sent(file, safe_content_type(content_type), kept, size, digest)
        except BaseException:
            self._taken.discard(file.casefold())  # a second try gets the same name
            raise
        finally:
            with suppress(OSError):  # what it holds back is of no use any more
                kept.close()

    async def _sent(self, file: str, content_type: str, kept: IO[bytes], size: int, digest: bytes) -> Output:
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(size),
            "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
        }

        async def send() -> Output:
            raw = await self._client.put(self._path + quote(file, safe=""), headers, _again(kept))
            try:
                return msgspec.json.decode(raw, type=_Saved).data
            except msgspec.MsgspecError as e:
                raise RefusedByApi(201, "its answer cannot be read: is its emp as new as this one?") from e

        try:
            output = await self._client.patiently(file, send)
        except EmpError as e:
            raise _cannot_store(f"{file} was not saved", e) from e
        if (output.name, output.size, output.sha256) != (file, size, digest.hex()):
            raise CannotStore(f"{file} was not saved: the API kept something else", retryable=True)
        return output


class RemoteInputs:
    """Inputs of the run that is called `run`, of whatever job holds them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def find(self, name: str, source: InputSource, job: Job, run: str) -> Content:
        """What the input `name` of `job` is. Raises NotGiven, CannotRead."""
        path = f"/api/work/{quote(job.id, safe='')}/{quote(run, safe='')}/inputs/{quote(name, safe='')}"

        async def look() -> tuple[int, str]:
            async with self._client.request("GET", path, headers={"Range": "bytes=0-0"}) as answer:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                # An empty file has no first byte.
                return int(size) if size.isdecimal() else answer.content_length or 0, _tag(answer)

        try:
            size, digest = await self._client.patiently(f"input {name}", look)
        except RefusedByApi as e:
            raise NotGiven(e.message) from e
        except EmpError as e:
            raise CannotRead(e.message, hint=e.hint) from e

        def read(start: int, stop: int) -> AsyncIterator[bytes]:
            return self._read(path, start, stop, digest, whole=(start, stop) == (0, size))

        return Content(size=size, sha256=digest, read=read)

    async def _read(self, path: str, at: int, stop: int, digest: str, *, whole: bool) -> AsyncIterator[bytes]:
        """Gone on with where it broke off, while the API is not away for too long. Raises CannotRead."""
        hashed, loop, pause_s = hashlib.sha256(), asyncio.get_running_loop(), PAUSE_S
        heard_s = loop.time()
        while at < stop:
            try:
                async with self._client.request("GET", path, headers={"Range": f"bytes={at}-{stop - 1}"}) as answer:
                    if _tag(answer) != digest:
                        raise CannotRead("it became another file while it was read")
                    async for chunk in answer.content.iter_chunked(FILE_CHUNK):
                        at, heard_s, pause_s = at + len(chunk), loop.time(), PAUSE_S
                        hashed.update(chunk)
                        yield chunk
            except Away as e:
                if loop.time() - heard_s > AWAY_S:
                    raise CannotRead(e.message) from e
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
            except RefusedByApi as e:
                raise CannotRead(e.message) from e
        if whole and hashed.hexdigest() != digest:
            raise CannotRead("its bytes are not those that were recorded")


def _tag(answer: aiohttp.ClientResponse) -> str:
    return answer.headers.get("ETag", "").strip('"')


async def _keep(file: str, chunks: AsyncIterable[bytes], into: IO[bytes]) -> tuple[int, bytes]:
    """All of `chunks` in a file; size and sha256. Raises CannotStore."""
    size, digest = 0, hashlib.sha256()
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_OUTPUT_BYTES:
            raise too_large(file)
        digest.update(chunk)
        try:
            await asyncio.to_thread(into.write, chunk)
        except OSError as e:
            words = os.strerror(e.errno or 0)
            raise CannotStore(
                f"{file} was not saved: it cannot be kept until it is sent: {words}", retryable=True, hint="make room"
            ) from e
    return size, digest.digest()


async def _again(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The file from its beginning."""
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, FILE_CHUNK):
        yield chunk


def _cannot_store(what: str, cause: EmpError) -> CannotStore:
    """Our error for what the API said, or did not say."""
    final = isinstance(cause, RefusedByApi) and cause.status in _FOREVER_NO
    words = f"the API says: {cause.message}" if isinstance(cause, RefusedByApi) else cause.message
    return CannotStore(f"{what}: {words}", retryable=not final, hint=cause.hint)
