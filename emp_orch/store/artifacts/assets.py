"""Assets: files given to jobs, kept in the artifact store under the digest of their content.

A file lies at `.assets/{sha256}`, which no job's folder can be called. `assets` in Redis says which are there and when
each was last given or named, `jobs:inputs` which jobs name them; artifacts/lua says how they are put there and deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, cast

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.jobs.document.inputs import is_digest
from emp_orch.store.artifacts.limits import WRITE_BYTES
from emp_orch.store.artifacts.run import Writing
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotRead, CannotStore, NoSuchArtifact, without_login
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from emp_orch.store.redis.scripts import Script

FOLDER = ".assets"
# Who puts an asset's file into its place or deletes it, and says nothing for so long, is gone.
MOVING_MS = 60_000
_WAIT_S = 0.05


class Asset(Struct, frozen=True, kw_only=True):
    """`created` is false when its content was there already."""

    asset: str
    size: int
    created: bool = True


class TooLarge(EmpError):
    """A file that is larger than `jobs.inputs.max_size`."""

    def __init__(self, name: str, most: int) -> None:
        super().__init__(
            f"{name} is larger than {most} bytes, the most that one input file may have",
            hint="raise jobs.inputs.max_size in emp.yaml and apply it",
        )


GONE = "it was never uploaded, or jobs.inputs.keep is over, or this machine sees another store; upload it again"


class NoSuchAsset(EmpError):
    """An asset that was never uploaded, or was removed meanwhile."""


class Assets:
    """The assets of one fleet. Raises what redis-py raises when Redis is away."""

    def __init__(self, store: Artifacts, r: Client, keys: Keys) -> None:
        self._store = store
        self._r = r
        self._keys = keys
        self._arrive = Script(r.execute_command, script("artifacts/arrive", keys, {"MOVING_MS": MOVING_MS}))
        self._settle = Script(r.execute_command, script("artifacts/settle", keys))
        self._name = Script(r.execute_command, script("artifacts/name", keys))

    # giving

    async def save(self, name: str, chunks: AsyncIterable[bytes], *, most: int) -> Asset:
        """Keep all of `chunks`, at most `most` bytes; content that is there already is not written twice.

        Raises TooLarge, CannotStore, and what `chunks` raises; nothing of it stays then.
        """
        writing = self._store.writing(FOLDER)
        try:
            await self._asked(name, writing.begin)
            await self._fill(writing, name, chunks, most)
            asset = f"sha256:{writing.digest.hexdigest()}"
            created = await self._placed(writing, name, asset)
        except BaseException:
            await self._store.through(writing.discard)
            raise
        if not created:
            await self._store.through(writing.discard)
        return Asset(asset=asset, size=writing.size, created=created)

    async def _placed(self, writing: Writing, name: str, asset: str) -> bool:
        """Move the file to its place, unless its content is there already."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 2 * MOVING_MS / 1000
        while (answer := await self._arrive(asset)) == "wait":
            if loop.time() > deadline:
                raise CannotStore(f"{name} was not saved: somebody else is at {asset}", retryable=True)
            await asyncio.sleep(_WAIT_S)
        if answer == "there" and await self._is_whole(asset, writing.size):
            return False
        await self._asked(name, writing.finish, _file(asset))
        await self._settle(asset)
        return True

    async def _is_whole(self, asset: str, size: int) -> bool:
        """Whether its file is there: somebody may have deleted it beside us."""
        try:
            return await self.size(asset) == size
        except NoSuchAsset:
            return False

    async def _fill(self, writing: Writing, name: str, chunks: AsyncIterable[bytes], most: int) -> None:
        held, size = bytearray(), 0
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise TooLarge(name, most)
            held += chunk
            if len(held) >= WRITE_BYTES:
                await self._asked(name, writing.write, bytes(held))
                held.clear()
        if held:
            await self._asked(name, writing.write, bytes(held))

    async def _asked(self, name: str, work: Callable[..., None], *args: Any) -> None:
        try:
            await self._store.through(work, *args)
        except Exception as e:
            raise self._store.cannot_store(e, f"{name} was not saved") from e

    # naming and reading

    async def touch(self, asset: str) -> bool:
        """Whether it is kept; if so, it was just now named."""
        return is_digest(asset) and not await self._name("", asset)

    async def named(self, job_id: str, assets: Iterable[str]) -> list[str]:
        """Note that a job is about to be queued that names these. Those that are not kept; then nothing was noted."""
        return cast(list[str], await self._name(job_id, *dict.fromkeys(assets)))

    async def size(self, asset: str) -> int:
        """Raises NoSuchAsset, CannotRead."""
        try:
            return await self._store.size_of(self.path(asset), what=asset)
        except NoSuchArtifact as e:
            raise NoSuchAsset(e.message, hint=GONE) from e

    async def read(self, asset: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Its bytes; a whole read is held against the digest. Raises NoSuchAsset, CannotRead."""
        path, size = self.path(asset), await self.size(asset)
        end = size if stop is None else min(stop, size)
        digest = hashlib.sha256()
        try:
            async for chunk in self._store.span(path, start, end, what=asset):
                digest.update(chunk)
                yield chunk
        except NoSuchArtifact as e:
            raise NoSuchAsset(e.message, hint=GONE) from e
        if start == 0 and end == size and digest.hexdigest() != _file(asset):
            raise CannotRead(f"{asset} in {without_login(self._store.url)} is damaged: it has other bytes")

    def path(self, asset: str) -> str:
        """Where its file is in the store. Raises NoSuchAsset."""
        if not is_digest(asset):
            raise NoSuchAsset(f"{asset!r} is not an asset", hint="write sha256:HEX")
        try:
            return self._store.path(FOLDER, _file(asset))
        except NoSuchArtifact as e:
            raise NoSuchAsset(e.message, hint=e.hint) from e


def content_type_of(name: str) -> str:
    """By its ending, as everywhere."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _file(asset: str) -> str:
    return asset.removeprefix("sha256:")
