"""The fleet's artifact store: what jobs made, as files at any fsspec URL.

Laid out as `{job id}/{run}/{file}`. A run writes only into its own folder; the recorded result says which run's files
are the job's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.outputs import is_safe_id, location_of
from emp_orch.store.artifacts.run import RunFolder, Writing
from emp_orch.store.artifacts.url import (
    CannotRead,
    CannotStore,
    NoSuchArtifact,
    is_bucket,
    is_local,
    opened,
    without_login,
)

# So much is read with the first look at a file.
SMALL_BYTES = 64 * 1024
# A read of a far store is one request; it pays to ask for more.
_READ_LOCAL_BYTES = 512 * 1024
_READ_FAR_BYTES = 4 * 1024**2
_THREADS = 4

# A far store's own client tries again by itself, for minutes.
CHECK_S = 30.0

LOOK_CLOSER = "`emp doctor` looks closer"

T = TypeVar("T")


class Artifacts:
    """The store at `url`. Raises BadArtifactsUrl; nothing is asked of the store yet."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = opened(url)
        self._local = is_local(url)
        self._bucket = is_bucket(url)
        # What lay above the store and is there no more was moved, or removed: it is not ours to make again. So is a
        # fleet's whole folder; one that is there but was never applied gets its .emp/ by the first output.
        above = Path(self._root).parent
        moved = above.name == ".emp" and not above.parent.is_dir()
        self._above = above if self._local and (moved or above.is_dir()) else None
        self._chunk = _READ_LOCAL_BYTES if self._local else _READ_FAR_BYTES
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")

    def run(self, job_id: str, run: str) -> RunFolder:
        """Where one run of a job saves. `run`: unique to it, characters as in a job's id. Raises CannotStore."""
        for text in (job_id, run):
            if not is_safe_id(text):
                raise CannotStore(f"{text!r} cannot be the name of a folder for outputs", retryable=False)
        return RunFolder(self, job_id, run)

    async def find(self, job_id: str, output: Output) -> str:
        """Where the file is: a path on this host for a local store. Raises NoSuchArtifact, CannotRead."""
        path, _ = await self._found(job_id, output, small=0)
        return path

    async def opened(self, job_id: str, output: Output) -> tuple[str, bytes | None]:
        """Where the file is, and all of it where that is small: one wait instead of two. Raises as `find`."""
        return await self._found(job_id, output, small=SMALL_BYTES)

    async def _found(self, job_id: str, output: Output, *, small: int) -> tuple[str, bytes | None]:
        run, file = self._checked(job_id, output)
        path = self.path(job_id, run, file)
        try:
            info, content = await self.call(self._look, path, small)
        except FileNotFoundError as e:
            raise await self._gone(job_id, run, output.name) from e
        except Exception as e:
            raise self._cannot_read(e) from e
        if info["type"] != "file" or info["size"] != output.size:
            raise NoSuchArtifact(
                f"{output.name} of job {job_id} is not the file that was saved: "
                f"a {info['type']} of {info['size']} bytes, {output.size} were recorded"
            )
        return path, content if content is not None and len(content) == output.size else None

    async def _gone(self, job_id: str, run: str, name: str) -> NoSuchArtifact:
        """What to say of a file that is not there: told by what else of its run is. Raises CannotRead."""
        where, retry = without_login(self.url), "`emp jobs retry` makes it anew"
        try:
            # A bucket's folder is there as long as something is in it.
            root = self._root.partition("/")[0] if self._bucket else self._root
            store, folder = [await self.call(self._fs.exists, p) for p in (root, self.path(job_id, run))]
        except Exception as e:
            raise self._cannot_read(e) from e
        if not store:
            return NoSuchArtifact(f"there is no {where}", hint="was the artifact store moved, or its folder removed?")
        if folder:
            return NoSuchArtifact(f"{name} of job {job_id} was deleted from {where}", hint=retry)
        return NoSuchArtifact(
            f"nothing of run {run} of job {job_id} is in {where}",
            hint=f"it was deleted, or its worker saves to another store: a folder of its own machine? {retry}",
        )

    async def read(
        self, job_id: str, output: Output, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `stop`, in chunks. Raises NoSuchArtifact, CannotRead."""
        path = await self.find(job_id, output)
        end = output.size if stop is None else min(stop, output.size)
        async for chunk in self.span(path, start, end, what=f"{output.name} of job {job_id}"):
            yield chunk

    async def span(self, path: str, start: int, end: int, *, what: str) -> AsyncIterator[bytes]:
        """The bytes of a file of the store, in chunks. Raises NoSuchArtifact when it goes meanwhile, CannotRead."""
        while start < end:
            try:
                chunk = await self.call(self._part, path, start, min(start + self._chunk, end))
            except FileNotFoundError as e:
                raise NoSuchArtifact(f"{what} was deleted while it was read") from e
            except Exception as e:
                raise self._cannot_read(e) from e
            if not chunk:
                raise NoSuchArtifact(f"{what} was cut short while it was read")
            start += len(chunk)
            yield chunk

    async def size_of(self, path: str, *, what: str) -> int:
        """The size of a file of the store. Raises NoSuchArtifact, CannotRead."""
        try:
            info = await self.call(self._info, path)
        except FileNotFoundError as e:
            raise NoSuchArtifact(f"{what} is not in {without_login(self.url)}") from e
        except Exception as e:
            raise self._cannot_read(e) from e
        if info["type"] != "file":
            raise NoSuchArtifact(f"{what} is not a file in {without_login(self.url)}")
        return int(info["size"])

    async def delete(self, job_id: str) -> None:
        """Remove everything of that job, also what lost runs left. Nothing there is no error. Raises CannotStore."""
        if not is_safe_id(job_id):
            raise CannotStore(f"{job_id!r} cannot be the name of a folder for outputs", retryable=False)
        try:
            await self.call(self._delete, f"{self._root}/{job_id}")
        except Exception as e:
            raise self.cannot_store(e, f"the outputs of job {job_id} were not deleted") from e

    async def check(self) -> None:
        """Write a small file, read it back, remove it. Raises CannotStore with the reason when that fails."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self.call(self._probe)
        except TimeoutError as e:
            where = without_login(self.url)
            raise CannotStore(f"the artifact store {where} does not answer within {CHECK_S:g} s", retryable=True) from e
        except Exception as e:
            raise self.cannot_store(e, "the artifact store does not work") from e

    # for RunFolder

    def path(self, *parts: str) -> str:
        """The full path in the store. Raises NoSuchArtifact when a link on a local way there leads elsewhere."""
        path = self._root
        for part in parts:
            path = f"{path}/{part}"
            if self._local and os.path.islink(path):  # noqa: PTH114  # at every file; a Path costs more than the look
                raise NoSuchArtifact(f"{path} leads out of its folder", hint="remove the symbolic link there")
        return path

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        """`work` in a thread. When cancelled, the thread is left to itself."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def through(self, work: Callable[..., T], *args: Any) -> T:
        """`work` in a thread. When cancelled, first waits until the thread is through with it."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody else will look
            raise

    def writing(self, *folder: str) -> Writing:
        """A file of that folder, not yet begun. Raises NoSuchArtifact where its folder leads elsewhere, CannotStore."""
        self._assure_above()
        return Writing(self._fs, self.path(*folder), fsync=self._local, bucket=self._bucket)

    def _assure_above(self) -> None:
        if self._above is not None and not self._above.is_dir():
            raise CannotStore(
                f"{self._above} is gone, and the artifact store with it: the fleet's folder was moved or removed",
                retryable=True,
                hint="`emp down` where the folder is now, and `emp apply` there",
            )

    def remove(self, path: str) -> None:
        """Delete one file; blocks."""
        self._fs.rm_file(path)

    def cannot_store(self, cause: Exception, what: str) -> CannotStore:
        """Our error for what a store's package raised."""
        where = without_login(self.url)
        match cause:
            case CannotStore():
                return cause
            case OSError(errno=errno.ENOSPC | errno.EDQUOT):
                return CannotStore(f"{what}: no space left in {where}", retryable=True, hint="make room there")
            case PermissionError():
                far = "check the login in the environment, and what it may do there"
                hint = "let the worker's user write there" if self._local else far
                return CannotStore(f"{what}: {where} may not be written: {cause}", retryable=True, hint=hint)
            case FileNotFoundError() if self._bucket:
                hint = "make the bucket, which emp does not"
                return CannotStore(f"{what}: {where}: {cause}", retryable=True, hint=hint)
            case NoSuchArtifact():
                return CannotStore(f"{what}: {cause.message}", retryable=False, hint=cause.hint)
            case _:
                words = str(cause) or type(cause).__name__
                return CannotStore(f"{what}: {where}: {words}", retryable=True, hint=LOOK_CLOSER)

    # in threads

    def _info(self, path: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        info: dict[str, Any] = self._fs.info(path)
        return info

    def _look(self, path: str, small: int) -> tuple[dict[str, Any], bytes | None]:
        if self._local:
            return _look_here(path, small)
        info = self._info(path)
        if info["type"] != "file" or not 0 < info["size"] <= small:
            return info, None
        return info, self._part(path, 0, info["size"])

    def _part(self, path: str, start: int, stop: int) -> bytes:
        part: bytes = self._fs.cat_file(path, start=start, end=stop)  # by name: s3fs has other arguments before
        return part

    def _delete(self, folder: str) -> None:
        self._fs.invalidate_cache()
        for _ in range(3):  # a run that lost its lease, or another deletion, may be at work there
            try:
                self._fs.rm(folder, recursive=True)
            except FileNotFoundError:
                if not self._fs.exists(folder):
                    return
            except OSError as e:
                if e.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
        raise CannotStore(f"{folder} fills again while it is deleted", retryable=True)

    def _probe(self) -> None:
        self._assure_above()
        path, content = f"{self._root}/.probe-{secrets.token_hex(8)}", secrets.token_bytes(64)
        if not self._bucket:
            self._fs.makedirs(self._root, exist_ok=True)
        try:
            self._fs.pipe_file(path, content)
        except Exception:
            if self._local and self._fs.exists(path):  # a part; a far store may take its time to refuse once more
                self._fs.rm_file(path)
            raise
        try:
            found = self._fs.cat_file(path)
        finally:
            self._fs.rm_file(path)
        if found != content:
            raise CannotStore("it gives back other bytes than were written", retryable=True)

    def _checked(self, job_id: str, output: Output) -> tuple[str, str]:
        place = location_of(output)
        if place is None or not is_safe_id(job_id):
            raise NoSuchArtifact(f"the record of {output.name!r} of job {job_id!r} is damaged: {output.path!r}")
        return place

    def _cannot_read(self, cause: Exception) -> EmpError:
        if isinstance(cause, EmpError):
            return cause
        words = str(cause) or type(cause).__name__
        return CannotRead(f"cannot read {without_login(self.url)}: {words}", hint=LOOK_CLOSER)


def _look_here(path: str, small: int) -> tuple[dict[str, Any], bytes | None]:
    """As Artifacts._look, of a file of this host: opened once, and nothing waits for who writes into a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        found = os.fstat(fd)
        kind = "file" if stat.S_ISREG(found.st_mode) else "directory" if stat.S_ISDIR(found.st_mode) else "other"
        info = {"type": kind, "size": found.st_size}
        return info, file.read(found.st_size) if kind == "file" and 0 < found.st_size <= small else None
