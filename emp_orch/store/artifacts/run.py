"""How one run saves its outputs: each written beside its place, then moved there when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.outputs import safe_content_type, safe_name, unique_name
from emp_orch.store.artifacts.limits import WRITE_BYTES
from emp_orch.store.artifacts.url import CannotStore, NoSuchArtifact

MAX_OUTPUT_BYTES = 1024**3


def too_large(file: str) -> CannotStore:
    """What to say of an output beyond MAX_OUTPUT_BYTES."""
    return CannotStore(
        f"{file} was not saved: it is larger than {MAX_OUTPUT_BYTES} bytes, the most one output may have",
        retryable=False,
    )


class Store(Protocol):
    """What a run's folder needs of the store that it is in."""

    def writing(self, *folder: str) -> Writing: ...

    def cannot_store(self, cause: Exception, what: str) -> CannotStore: ...

    async def call(self, work: Callable[..., Any], *args: Any) -> Any: ...

    async def through(self, work: Callable[..., Any], *args: Any) -> Any: ...


class RunFolder:
    """One run's outputs; nothing else is ever written through it."""

    def __init__(self, store: Store, job_id: str, run: str) -> None:
        self._store = store
        self._job_id = job_id
        self._run = run
        self._taken: set[str] = set()

    def begin_anew(self) -> None:
        """Have the next files take the names of those that were saved; one that is not saved again is in no record."""
        self._taken.clear()

    async def prepare(self) -> None:
        """Have its folder made while the service is at work: a folder may take longer than a small file. Whatever goes
        wrong, the first save meets it again and says so.
        """
        with contextlib.suppress(Exception):
            await self._store.call(self._store.writing(self._job_id, self._run).make_folder)

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        """Save all of `chunks` under a safe, unique form of `name`. Raises CannotStore, and what `chunks` raises.

        On any error, and when cancelled, nothing of it stays.
        """
        file = unique_name(safe_name(name), self._taken)
        self._taken.add(file.casefold())
        try:
            writing = self._store.writing(self._job_id, self._run)
        except NoSuchArtifact as e:
            raise self._store.cannot_store(e, f"{file} was not saved") from e
        try:
            rest = await self._fill(writing, file, chunks)
            await self._asked(file, writing.finish, file, rest)
        except BaseException:
            await self._store.through(writing.discard)
            self._taken.discard(file.casefold())  # a second try gets the same name
            raise
        return Output(
            name=file,
            content_type=safe_content_type(content_type),
            size=writing.size,
            sha256=writing.digest.hexdigest(),
            path=f"{self._run}/{file}",
        )

    async def _fill(self, writing: Writing, file: str, chunks: AsyncIterable[bytes]) -> bytes:
        """Write all but the last of `chunks`, which is returned: of a small file that is all, and costs one thread."""
        held, size = bytearray(), 0
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_OUTPUT_BYTES:
                raise too_large(file)
            held += chunk
            if len(held) >= WRITE_BYTES:
                await self._asked(file, writing.write, bytes(held))
                held.clear()
        return bytes(held)

    async def _asked(self, file: str, work: Callable[..., None], *args: Any) -> None:
        try:
            await self._store.through(work, *args)
        except Exception as e:
            raise self._store.cannot_store(e, f"{file} was not saved") from e


class Writing:
    """One file on its way: begun, written, finished; or discarded, at any moment. Every method blocks.

    Whoever was cancelled twice no longer waits for its thread: a step still under way ends before the file is
    discarded, and one that comes after does nothing.
    """

    def __init__(self, fs: Any, folder: str, *, fsync: bool, bucket: bool) -> None:
        self._fs = fs
        self._folder = folder
        self._bucket = bucket
        self._path = f"{folder}/.saving-{secrets.token_hex(8)}"
        self._fsync = fsync
        self._handle: Any = None
        self._step = threading.Lock()
        self._discarded = False
        self.digest = hashlib.sha256()
        self.size = 0

    @contextlib.contextmanager
    def _one_step(self) -> Iterator[None]:
        with self._step:
            if self._discarded:
                raise CannotStore("it was given up", retryable=True)
            yield

    def begin(self) -> None:
        """Find out now, and not at the first write, whether anything can be written."""
        with self._one_step():
            self._open()

    def write(self, data: bytes) -> None:
        with self._one_step():
            self._append(data)

    def finish(self, name: str, rest: bytes = b"") -> None:
        """Write the `rest` and move it to `name`; on a local disk after a write-through, so that no record names a lost
        file.
        """
        with self._one_step():
            self._append(rest)
            if self._fsync:
                self._handle.flush()
                os.fdatasync(self._handle.fileno())
            self._handle.close()
            target = f"{self._folder}/{name}"
            if self._fsync:
                Path(self._path).replace(target)
            else:
                self._fs.mv(self._path, target)
            self._path = target

    def make_folder(self) -> None:
        if not self._bucket:
            self._fs.makedirs(self._folder, exist_ok=True)

    def _open(self) -> None:
        if self._handle is None:
            self.make_folder()
            self._handle = self._fs.open(self._path, "wb")

    def _append(self, data: bytes) -> None:
        self._open()
        self._handle.write(data)
        self.digest.update(data)
        self.size += len(data)

    def discard(self) -> None:
        """Leave nothing; where even that fails, a file stays that no reader takes, until the job is deleted."""
        with self._step:
            self._discarded = True
            if self._handle is None:
                return
            for step in (self._handle.close, self._remove):
                try:
                    step()
                except Exception:  # noqa: S112, BLE001  # the error that led here is the one to tell
                    continue

    def _remove(self) -> None:
        self._fs.rm_file(self._path)
