"""A job's input files into ComfyUI's input folder, into a folder of the run's own, and out of it again.

`POST /upload/image` takes files of every type. A node finds one by its name below the input folder, so what the
workflow says of `photo.png` becomes `emp-job-ID-1/photo.png`: two jobs with other pictures of one name meet nowhere.
Source: image_upload of server.py and annotated_filepath of folder_paths.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.connectors.base import InputFile, Run, RunFailed
from emp_orch.connectors.comfyui.server.protocol import Interrupted, Workflow
from emp_orch.connectors.comfyui.server.session import Session, whole
from emp_orch.connectors.http.client import NETWORK
from emp_orch.errors import EmpError
from emp_orch.jobs.document.inputs import is_link, references
from emp_orch.jobs.document.model import Job, Progress

log = logging.getLogger("emp.worker")

# What a worker that was killed left, and how often that is looked for.
LEFTOVERS_S = 24 * 3600.0
LEFT_INPUTS_EVERY_S = 3600.0
_FOLDER = re.compile(r"emp-job-[A-Za-z0-9._-]+-\d+")
_MAX_SAID = 500


class _Uploaded(Struct):
    name: str
    subfolder: str = ""


def folder_of(job: Job) -> str:
    """The folder of a run's inputs; no two runs of a job have the same."""
    return f"emp-job-{job.id}-{job.attempts}"


def referring(workflow: Workflow, places: Mapping[str, str]) -> Workflow:
    """`workflow` with each literal that names an input, or a folder of some, in the words of `places`."""
    if not places:
        return workflow
    means = references(places)
    moved = {text: _moved(text, name, places) for text, name in means.items()}
    return {node_id: _node_referring(node, moved) for node_id, node in workflow.items()}


def _moved(text: str, name: str, places: Mapping[str, str]) -> str:
    """What stands in place of `text`, which means the input or folder `name`; a mark such as ` [input]` stays."""
    mark = text[len(name) :]
    if name in places:
        return places[name] + mark
    inner, place = next((inner, place) for inner, place in places.items() if inner.startswith(f"{name}/"))
    return place.removesuffix(inner) + name + mark


def _node_referring(node: Any, moved: Mapping[str, str]) -> Any:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return node if not isinstance(inputs, dict) else dict(node, inputs=_in_words(inputs, moved))


def _in_words(value: Any, moved: Mapping[str, str]) -> Any:
    match value:
        case str():
            return moved.get(value, value)
        case dict():
            return {key: _in_words(inner, moved) for key, inner in value.items()}
        case list() if not is_link(value):
            return [_in_words(inner, moved) for inner in value]
        case _:
            return value


class Inputs:
    """Uploads what a run brings, and removes it behind the run where the input folder is of this host."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._task: asyncio.Task[dict[str, str]] | None = None
        self._stopped = False
        self._looked_at = float("-inf")

    async def put(self, run: Run) -> dict[str, str]:
        """Upload the job's inputs; where a node finds each. Raises RunFailed, and Interrupted after `stop`."""
        if not run.inputs:
            return {}
        self._stopped = False
        self._task = asyncio.create_task(self._all(run), name=f"upload inputs of {run.job.id}")
        try:
            await asyncio.wait([self._task])
            if self._stopped or self._task.cancelled():
                raise Interrupted
            return self._task.result()
        finally:
            self._task.cancel()
            self._task = None

    def stop(self) -> None:
        """Give up an upload under way."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _all(self, run: Run) -> dict[str, str]:
        places = {}
        for name, file in run.inputs.items():
            await run.progress(Progress(fraction=0.0, message=f"uploading {name}"))
            places[name] = await self._one(name, file, folder_of(run.job))
        return places

    async def _one(self, name: str, file: InputFile, folder: str) -> str:
        path = PurePosixPath(folder, name)
        broken: list[EmpError] = []

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in file.open():
                    yield chunk
            except EmpError as e:
                broken.append(e)
                raise

        # As browsers write names; aiohttp would send them percent-encoded, and so they would be kept.
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("image", chunks(), filename=path.name, content_type=file.content_type)
        form.add_field("type", "input")
        form.add_field("subfolder", str(path.parent))
        form.add_field("overwrite", "true")
        try:
            async with self._session.http.post(
                self._session.url / "upload/image", data=form, allow_redirects=False
            ) as answer:
                text = await whole(answer)
        except (*NETWORK, EmpError):
            if broken:
                raise RunFailed(f"input {name}: {broken[0].message}", retryable=True) from broken[0]
            raise
        if answer.status != 200:
            raise _refused(name, file, answer.status, text)
        kept = msgspec.json.decode(text, type=_Uploaded)
        return str(PurePosixPath(kept.subfolder, kept.name))

    async def remove(self, run: Run, folder: str) -> None:
        """Remove what `put` uploaded; `folder`: the service's input folder on this host, '' where it is not known."""
        if folder and (run.inputs or run.job.inputs):
            await asyncio.to_thread(_remove, folder, folder_of(run.job))

    async def remove_leftovers(self, folder: str) -> None:
        """Remove what lost workers left, now and then."""
        now = time.monotonic()
        if folder and now - self._looked_at >= LEFT_INPUTS_EVERY_S:
            self._looked_at = now
            before = time.time() - LEFTOVERS_S
            for name in await asyncio.to_thread(lambda: list(_leftovers(folder, before))):
                await asyncio.to_thread(_remove, folder, name)


def _refused(name: str, file: InputFile, status: int, text: bytes) -> RunFailed:
    if status == 413:
        words = f"the service takes no file of {file.size} bytes; start it with a larger --max-upload-size"
        return RunFailed(f"input {name}: {words}", retryable=False)
    said = text[:_MAX_SAID].decode(errors="replace").strip()
    words = f"the service answered {status} to its upload{f': {said}' if said else ''}"
    return RunFailed(f"input {name}: {words}", retryable=status >= 500)


def _remove(folder: str, name: str) -> None:
    """Remove one folder of ours with all that is in it; a link there is left alone."""
    path = Path(folder, name)
    if _FOLDER.fullmatch(name) is None or path.is_symlink() or not path.is_dir():
        return
    try:
        shutil.rmtree(path)
    except OSError as e:
        log.warning("%s was not removed: %s", path, e.strerror or e)


def _leftovers(folder: str, before: float) -> Iterator[str]:
    try:
        entries = os.scandir(folder)
    except OSError:
        return
    with entries:
        for entry in entries:
            ours = _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            if ours and entry.stat(follow_symlinks=False).st_mtime < before:
                yield entry.name
