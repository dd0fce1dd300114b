"""Jobs from a file or standard input: one JSON object a line, or one JSON list.

A file is read twice, so that all of it is checked before any is queued; what comes through a pipe is checked as it
comes. Neither is held in memory, but for a list.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import structs

from emp_orch.cli.jobs.inputs import unreadable
from emp_orch.errors import UsageError
from emp_orch.jobs.document.submission import MAX_JOB_BYTES, BadSubmission, Submission, parse_submission
from emp_orch.jobs.document.workflows import Services

BATCH = 500
MAX_LINE = MAX_JOB_BYTES
MAX_LIST = 512 * 1024 * 1024
MAX_PROBLEMS = 20

# Where a job stands, as `jobs.jsonl:7` or `jobs.json: jobs[6]`, and the job.
Placed = tuple[str, Submission]


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file, or standard input for `-`. Raises UsageError."""
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115  # closed below; only opening may be the user's mistake
    except OSError as e:
        raise UsageError(f"cannot read {name}: {e.strerror or e}") from e
    with file:
        yield file


def _problems(where: str, told: list[str], more: int) -> UsageError:
    apart = "\n     "
    lines = [*told, f"and {more:,} more"] if more else told
    words = lines[0] if len(lines) == 1 else apart + apart.join(lines)
    return UsageError(
        f"nothing was queued: {words}",
        hint=f"put {where} right, one JSON job a line or one JSON list, and submit it again",
    )


def _line(text: bytes, services: Services) -> Submission:
    """The job on a line. Raises BadSubmission without the place."""
    if len(text) > MAX_LINE:
        raise BadSubmission([f"longer than {MAX_LINE} bytes"])
    try:
        return parse_submission(msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8)), services, files=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BadSubmission([f"not JSON: {e}"]) from e


class Source:
    """The jobs of one file. `name` is what errors call it; relative files that jobs name lie below `base`; `services`
    is what is known of the fleet's. Jobs before the `start`th are not given out. `once`: see `_Once`.
    """

    def __init__(
        self, file: BinaryIO, name: str, services: Services, *, base: Path, start: int = 1, once: bool = False
    ) -> None:
        self._file = file
        self._services = services
        self.base = base
        self.name = "standard input" if name == "-" else name
        self._start = start
        self._given = 0
        self._once = _Once() if once else None
        self._seekable = file.seekable()
        self.services: set[str] = set()

    def check(self) -> int | None:
        """How many jobs there are, once all are known to be good; None for a pipe, which cannot be read twice.

        Raises UsageError with the first problems, each with its line.
        """
        if not self._seekable:
            return None
        begin = self._file.tell()
        count, told, more = 0, list[str](), 0
        for where, text in self._texts():
            try:
                self.services.add(self._parse(text).service)
            except BadSubmission as e:
                room = MAX_PROBLEMS - len(told)
                told += [f"{where}: {problem}" for problem in e.problems[:room]]
                more += max(0, len(e.problems) - room)
            count += 1
        self._file.seek(begin)
        if told:
            raise _problems(self.name, told, more)
        if not count:
            raise UsageError(f"{self.name} has no jobs", hint="one JSON object a line, or a JSON list")
        if count < self._start:
            raise UsageError(f"{self.name} has {count:,} jobs, so there is nothing from the {self._start:,}th on")
        return count

    def _parse(self, text: object) -> Submission:
        known = self._services
        made = _line(text, known) if isinstance(text, bytes) else parse_submission(text, known, files=True)
        if made.inputs and (problems := list(unreadable(made, self.base))):
            raise BadSubmission(problems)
        return made

    def _texts(self) -> Iterator[tuple[str, object]]:
        """Each job of a seekable file and where it stands: a line, or an item of the list."""
        begin = self._file.tell()
        head = self._file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
        self._file.seek(begin)
        if head.startswith(b"["):
            yield from self._items(self._file.read(MAX_LIST + 1))
            return
        number = 0
        while line := self._file.readline(MAX_LINE + 1):
            number += 1
            where = f"{self.name}:{number}"
            if line.strip():
                yield where, line
            while len(line) > MAX_LINE and not line.endswith(b"\n"):  # the rest of a line that is too long
                line = self._file.readline(MAX_LINE + 1)

    def _items(self, text: bytes) -> Iterator[tuple[str, object]]:
        if len(text) > MAX_LIST:
            raise UsageError(f"{self.name} is a list of more than {MAX_LIST} bytes", hint="write one job a line")
        try:
            items = msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8), type=list)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise UsageError(f"{self.name} is no JSON list: {e}") from e
        for n, item in enumerate(items):
            yield f"{self.name}: jobs[{n}]", item

    async def batches(self) -> AsyncIterator[list[Placed]]:
        """The jobs, some at a time. Raises UsageError for a bad one of a pipe, once those before it are given out."""
        if self._seekable:
            for texts in _some(self._texts()):
                if wanted := [job for where, text in texts for job in self._wanted(where, text)]:
                    yield wanted
            return
        async for lines in _piped(self._file):
            batch: list[Placed] = []
            try:
                for where, text in self._numbered(lines):
                    batch += self._wanted(where, text)
            except UsageError:
                yield batch
                raise
            yield batch

    def _numbered(self, lines: list[tuple[int, bytes]]) -> Iterator[tuple[str, bytes]]:
        for number, line in lines:
            if number == 1 and line.lstrip().startswith(b"["):
                raise UsageError(
                    "a list cannot be read through a pipe", hint="write one job a line, or name the file: -f jobs.json"
                )
            if line.strip():
                yield f"{self.name}:{number}", line

    def _wanted(self, where: str, text: object) -> list[Placed]:
        """The job at `where`, or none where it stands before the start."""
        self._given += 1
        made_id = None if self._once is None else self._once.id_of(text)
        if self._given < self._start:
            return []
        job = self._checked(where, text)
        return [(where, job if made_id is None or job.id is not None else structs.replace(job, id=made_id))]

    def _checked(self, where: str, text: object) -> Submission:
        try:
            found = self._parse(text)
        except BadSubmission as e:
            raise UsageError(
                f"{where}: {'; '.join(e.problems)}", hint="put it right, and submit it with what follows it"
            ) from e
        self.services.add(found.service)
        return found


class _Once:
    """An id for each job of a file, from what the job says and how often that was said before it: a repeat of the file
    has the same ids, also with lines put in between or taken out.
    """

    def __init__(self) -> None:
        self._said: dict[bytes, int] = {}

    def id_of(self, text: object) -> str | None:
        """None for what is no JSON."""
        try:
            job = msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8)) if isinstance(text, bytes) else text
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        said = hashlib.sha256(msgspec.json.encode(job, order="sorted")).digest()[:12]
        before = self._said[said] = self._said.get(said, -1) + 1
        return f"once-{said.hex()}-{before}"


def _some(texts: Iterator[tuple[str, object]]) -> Iterator[list[tuple[str, object]]]:
    while batch := list(islice(texts, BATCH)):
        yield batch


async def _piped(file: BinaryIO) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The lines of a pipe as they come, numbered from 1. Read by a thread: who waits for a pipe can be interrupted."""
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(16)

    def read() -> None:
        # Not through the file's buffer: its lock, held by a thread that waits, would abort the end of the command.
        while chunk := os.read(file.fileno(), 1 << 16):
            room.acquire()
            loop.call_soon_threadsafe(came.put_nowait, chunk)
        loop.call_soon_threadsafe(came.put_nowait, None)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    number, rest = 0, b""
    while True:
        chunk = await came.get()
        room.release()
        *whole, rest = (rest + (chunk or b"\n")).split(b"\n")
        if len(rest) > MAX_LINE:
            raise UsageError(f"line {number + len(whole) + 1} is longer than {MAX_LINE} bytes")
        lines = [(number + n, line) for n, line in enumerate(whole, 1)]
        number += len(whole)
        for at in range(0, len(lines), BATCH):
            yield lines[at : at + BATCH]
        if chunk is None:
            return
