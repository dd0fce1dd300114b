"""What a run made, on its way from the service into the artifact store: whole, and that run's own.

A file that holds nothing, or another run's mark, is not saved as this job's (ADR 0014).
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any

import aiohttp
import msgspec

from emp_orch.connectors import base
from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui.files.marked import WITHOUT_THREAD_BYTES, content_of
from emp_orch.connectors.comfyui.run import follow
from emp_orch.connectors.comfyui.run.attempt import Attempt, DoubtfulOutput
from emp_orch.connectors.comfyui.run.isolation import Marks, owner, plain
from emp_orch.connectors.comfyui.server.folders import Folders
from emp_orch.connectors.comfyui.server.protocol import File, Record, files_of, texts_of
from emp_orch.connectors.comfyui.server.requests import Server
from emp_orch.connectors.http.client import NETWORK
from emp_orch.connectors.outputs import body_of, content_type_of, once
from emp_orch.jobs.document.model import Output, Result

# Names that were given to jobs and are not marked: so many are remembered.
MAX_GIVEN = 10_000
MAX_PATH = 4_096
# What the result says of nodes that did not fit.
MAX_ERRORS_BYTES = 32 * 1024
# Into these ComfyUI writes the workflow that made them.
_TELLING = ("image/", "video/", "audio/")

# A PNG ends so; what an extension puts behind it is short.
_PNG, _PNG_END, _END_BYTES = b"\x89PNG\r\n\x1a\n", b"IEND", 4096

NOTHING = "the workflow ended without a file or a text: it has an output node that gave nothing"


class Given:
    """Which run an unmarked name was last given to, and what was in it: for one service, as long as this lives."""

    def __init__(self) -> None:
        self._known: OrderedDict[File, tuple[str, str]] = OrderedDict()

    def before(self, file: File, prompt_id: str) -> str | None:
        """The sha256 of what another run was given under this name."""
        owner_id, sha256 = self._known.get(file, ("", ""))
        return sha256 if owner_id not in ("", prompt_id) else None

    def remember(self, file: File, prompt_id: str, sha256: str) -> None:
        if len(file.filename) + len(file.subfolder) > MAX_PATH:
            return  # no file system has that name
        self._known[file] = (prompt_id, sha256)
        self._known.move_to_end(file)
        while len(self._known) > MAX_GIVEN:
            self._known.popitem(last=False)


class Collector:
    """Saves what runs on one service made."""

    def __init__(self, server: Server) -> None:
        self.folders = Folders()  # the service's, as far as they can be known
        self._server = server
        self._given = Given()

    async def result(self, record: Record, attempt: Attempt) -> Result:
        """Everything of a run that succeeded. Raises RunFailed, which keeps what was saved before."""
        outputs: list[Output] = list(attempt.pictures)
        try:
            await self._collect(record, attempt, outputs)
        except RunFailed as e:
            e.keep(outputs)
            raise
        if not outputs:
            attempt.note(NOTHING)
        detail: dict[str, Any] = {"notes": attempt.notes} if attempt.notes else {}
        if attempt.node_errors:
            small = len(msgspec.json.encode(attempt.node_errors)) <= MAX_ERRORS_BYTES
            detail["node_errors"] = attempt.node_errors if small else [i[:100] for i in attempt.node_errors][:100]
        return Result(outputs=tuple(outputs), detail=detail)

    async def kept(self, record: Record, attempt: Attempt) -> tuple[Output, ...]:
        """As much as there is of a run that failed."""
        outputs: list[Output] = list(attempt.pictures)
        try:
            await self._collect(record, attempt, outputs)
        except (RunFailed, *NETWORK):
            pass  # the run's own failure is what matters
        return tuple(outputs)

    async def _collect(self, record: Record, attempt: Attempt, into: list[Output]) -> None:
        cached = record.cached()
        for node_id, file in files_of(record):
            if file.type == "temp" and attempt.pictures:
                continue  # previews are outputs only where nothing else is
            into.append(await self._save_file(file, attempt, cached=node_id in cached))
        for node_id, text in texts_of(record):
            data = once(text.encode(errors="replace"))
            into.append(await attempt.run.save(f"{node_id}.txt", "text/plain; charset=utf-8", data))

    async def _save_file(self, file: File, attempt: Attempt, *, cached: bool) -> Output:
        """Copy one file; begun again for a while when the connection breaks."""
        if (found := await self._here(file, attempt)) is not None:
            return await self._saved(file, *found, attempt, cached=cached)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + base.GONE_S
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        while True:
            try:
                async with self._server.view(query) as answer:
                    kind = _kind_of(file, answer, cached=cached)
                    return await self._saved(file, kind, body_of(answer), attempt, cached=cached)
            except NETWORK:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(follow.RECONNECT_S)

    async def _here(self, file: File, attempt: Attempt) -> tuple[str, AsyncIterator[bytes]] | None:
        """Type and bytes of a file of this host that is the run's by its name: the service is not asked for it."""
        folder, kind = self.folders.of(file.type), mimetypes.guess_type(file.filename)[0]
        if not folder or not kind or not attempt.mark or not file.filename.startswith(attempt.mark):
            return None
        content = content_of(folder, file, WITHOUT_THREAD_BYTES) or await asyncio.to_thread(content_of, folder, file)
        return (kind, once(content)) if content else None

    async def _saved(
        self, file: File, kind: str, body: AsyncIterator[bytes], attempt: Attempt, *, cached: bool
    ) -> Output:
        name, marks = _name_of(file), Marks()
        before = self._given.before(file, attempt.prompt_id)

        async def checked() -> AsyncIterator[bytes]:
            empty, head, end = True, b"", b""
            async for chunk in body:
                head, end, empty = head or chunk[:8], (end + chunk)[-_END_BYTES:], False
                if kind.startswith(_TELLING):
                    marks.see(chunk)
                yield chunk
            if empty:
                raise DoubtfulOutput(f"{name}, made by the service, has 0 bytes: another run may have written over it")
            if head == _PNG and _PNG_END not in end:
                raise DoubtfulOutput(f"{name} is cut: another run may have been writing over it")
            whose = owner(marks.found, attempt.mark, attempt.mentioned)
            if whose not in (None, attempt.mark) and not (cached and before):
                raise DoubtfulOutput(_ANOTHERS.format(name=name))

        output = await attempt.run.save(name, kind, checked())
        if before and attempt.mark not in file.filename:
            if cached and before != output.sha256:
                raise DoubtfulOutput(_ANOTHERS.format(name=name))
            if not cached:
                attempt.note(f"{name}: the service gave that file name to an earlier run too, and wrote over it")
        if attempt.mark and attempt.mark in file.filename:
            attempt.copied.append((file, output.size))
        else:
            self._given.remember(file, attempt.prompt_id, output.sha256)
        return output


def _name_of(file: File) -> str:
    return plain(PurePosixPath(file.filename).name)


def _kind_of(file: File, answer: aiohttp.ClientResponse, *, cached: bool) -> str:
    """What the service says the file is. Raises RunFailed where it does not give it."""
    name = _name_of(file)
    if answer.status == 404:
        whence = "from an earlier run, " if cached else ""
        raise DoubtfulOutput(f"the service made {name} {whence}but has it no more: it answered 404")
    if answer.status != 200:
        raise RunFailed(f"the service made {name} but answered {answer.status} for it", retryable=True)
    return content_type_of(answer, name)


_ANOTHERS = (
    "{name}, which the service gives as made by this run, was written by another run: services that share an output "
    "folder write over each other's files"
)
