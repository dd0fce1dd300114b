"""Input files on the command line and in files of jobs: found, uploaded with progress, named in the job."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emp_orch.cli.jobs.access import Access, plain
from emp_orch.errors import EmpError, UsageError

if TYPE_CHECKING:
    from emp_orch.jobs.document.inputs import LocalFile
    from emp_orch.jobs.document.submission import Submission
    from emp_orch.store.artifacts.assets import Asset

FORM = "NAME=@FILE, @FILE, @FOLDER/, NAME=https://…, NAME=asset:sha256:… or NAME=job:ID/OUTPUT"
# A larger file's upload is shown as it goes.
SHOWN_BYTES = 8 * 1024**2
_CHUNK = 1024**2


def given(options: Sequence[str], folder: Path) -> dict[str, Any]:
    """The inputs that `--input` options name, as a job has them; files are relative to `folder`. Raises UsageError."""
    inputs: dict[str, Any] = {}
    for text in options:
        for name, source in _one(text, folder):
            if name in inputs:
                raise UsageError(f"--input names {name} twice")
            inputs[name] = source
    return inputs


def _one(text: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    name, separator, value = ("", "", text) if text.startswith("@") else text.partition("=")
    kind, _, rest = value.partition(":")
    if value.startswith("@"):
        yield from _files(name, value[1:], folder)
    elif not separator or not name:
        raise UsageError(f"--input {text!r} is not {FORM}")
    elif kind in ("http", "https", "data"):
        yield name, {"url": value}
    elif kind == "asset":
        yield name, {"asset": rest}
    elif kind == "sha256":
        yield name, {"asset": value}
    elif kind == "job":
        yield name, {"job": rest}
    else:
        raise UsageError(f"--input {name}={value!r} is not {FORM}", hint=f"a file is written with @: {name}=@{value}")


def _files(name: str, where: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file, or every file below a folder; its hidden ones are left out."""
    path = folder / where
    if not path.is_dir():
        yield name or path.name, {"file": str(path)}
        return
    found = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
    if not found:
        raise UsageError(f"--input @{where}: the folder holds no files")
    head = f"{name.rstrip('/')}/" if name else ""
    for p in found:
        yield f"{head}{p.relative_to(path).as_posix()}", {"file": str(p)}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def unreadable(job: Submission, base: Path) -> Iterator[str]:
    """What keeps its files from being uploaded, by their names; relative ones lie below `base`."""
    from emp_orch.jobs.document.inputs import LocalFile

    for name, source in job.inputs.items():
        if isinstance(source, LocalFile):
            path = base / source.path
            if not path.is_file():
                yield f"inputs.{name}.file: {plain(str(path))} is {'not a file' if path.exists() else 'not there'}"
            elif not os.access(path, os.R_OK):
                yield f"inputs.{name}.file: {plain(str(path))} may not be read"


async def placed(access: Access, jobs: Sequence[tuple[str, Submission]], base: Path) -> list[Submission]:
    """The jobs, ready to be queued. Their relative files lie below `base`.

    Raises UsageError with the place of the job whose files cannot be had.
    """
    if not any(job.inputs for _, job in jobs):
        return [job for _, job in jobs]
    with _Uploads(access, base) as uploads:
        return [await uploads.placed(where, job) for where, job in jobs]


class _Uploads:
    """Keeps files of this host in the store, and shows on stderr how far large ones are."""

    def __init__(self, access: Access, base: Path) -> None:
        from rich.progress import DownloadColumn

        from emp_orch.cli.jobs.wait import bar
        from emp_orch.store.artifacts.assets import Assets
        from emp_orch.store.artifacts.job_inputs import JobInputs
        from emp_orch.store.artifacts.store import Artifacts

        limits = access.settings.inputs
        self._assets = Assets(Artifacts(access.settings.artifacts), access.redis, access.keys)
        self._inputs = JobInputs(self._assets, limits)
        self._most = limits.max_bytes if limits is not None else 0
        self._base = base
        self._bar = bar(DownloadColumn())

    def __enter__(self) -> _Uploads:
        self._shown = self._bar.__enter__()
        return self

    def __exit__(self, *how: Any) -> None:
        self._bar.__exit__(*how)

    async def placed(self, where: str, job: Submission) -> Submission:
        try:
            (ready,) = await self._inputs.placed([job], self._keep)
        except EmpError as e:
            raise UsageError(f"{where}: {e.message}" if where else e.message, hint=e.hint) from e
        return ready

    async def _keep(self, name: str, file: LocalFile) -> Asset:
        """Raises UsageError for a file that cannot be read, TooLarge, CannotStore."""
        path = self._base / file.path
        try:
            size = path.stat().st_size
            task = self._shown.add_task(f"upload {name}", total=size) if size >= SHOWN_BYTES else None

            def moved(count: int) -> None:
                if task is not None:
                    self._shown.advance(task, count)

            kept = await self._assets.save(name, _chunks(path, moved), most=self._most)
        except OSError as e:
            raise UsageError(f"cannot read {plain(str(path))}: {e.strerror or e}") from e
        if task is not None:
            self._shown.remove_task(task)
        return kept


async def _chunks(path: Path, moved: Callable[[int], None]) -> AsyncIterator[bytes]:
    import asyncio

    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            moved(len(chunk))
            yield chunk
