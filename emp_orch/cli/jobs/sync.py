"""A job submitted through the API and waited for in the same request: most of a short job's time is imports.

Whoever gets no answer here submits to Redis as always: the job's id is made before, so that both are one job.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from emp_orch import settings
from emp_orch.errors import EmpError, UsageError
from emp_orch.host.ports import refuse_strangers
from emp_orch.layout import Layout

if TYPE_CHECKING:
    from emp_orch.settings import Listen

# Longer jobs are waited for with progress, on the queue's own events.
QUICK_S = 1
# Beyond the wait: an API that takes longer does not answer.
ANSWER_S = 4.0
MAX_ANSWER_BYTES = 8 * 1024**2


class Output(Struct, frozen=True, kw_only=True):
    """As jobs/model has it, without its imports; so are the others."""

    name: str
    content_type: str
    size: int
    sha256: str
    path: str


class Result(Struct, frozen=True, kw_only=True):
    outputs: tuple[Output, ...] = ()
    detail: dict[str, Any] = {}


class JobError(Struct, frozen=True, kw_only=True):
    message: str
    outputs: tuple[Output, ...] = ()


class Ended(Struct, frozen=True, kw_only=True):
    """What is told of a job at its end."""

    id: str = msgspec.field(name="job_id")
    status: str
    error: JobError | None = None
    result: Result | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What it made; of a failed run what is kept of it."""
        return self.result.outputs if self.result else self.error.outputs if self.error else ()


class Quick(Struct, frozen=True, kw_only=True):
    """The API has the job. `created` False: one of that id was there already. `job` None: it goes on."""

    job_id: str
    created: bool
    status: str
    job: Ended | None = None


class _Answer(Struct):
    data: Quick | None = None
    error: str = ""
    hint: str = ""


def new_id() -> str:
    """As store/queue/submit makes them, without its imports."""
    return os.urandom(12).hex()


def submitted(folder: Path, asked: dict[str, Any], within_s: float | None) -> Quick | None:
    """The job that `asked` describes, ended if that took no longer than QUICK_S. None: the API does not answer.

    Raises UsageError for a job that cannot be accepted, EmpError when its id is another job's.
    """
    wait_s = QUICK_S if within_s is None or within_s >= QUICK_S else 0
    known = settings.load(Layout(folder))
    try:
        if known.uid is not None:
            refuse_strangers(known.api.reached_at, known.api.port, known.uid)
        status, body = _post(known.api, f"/api/jobs?wait={wait_s}", asked, wait_s + ANSWER_S)
        answer = msgspec.json.decode(body, type=_Answer)
    except (OSError, ValueError, IndexError):  # msgspec's errors are ValueErrors
        return None
    if status in (200, 201):
        return answer.data
    if status == 409:
        # Or a file that it names is gone, which says itself what to do.
        of_id = bool(asked.get("id")) and "has the id" in answer.error
        raise EmpError(answer.error, hint=f"`emp jobs show {asked['id']}` shows it" if of_id else answer.hint)
    if status in (400, 413):
        raise UsageError(answer.error, hint=answer.hint)
    return None


def _post(listen: Listen, path: str, asked: dict[str, Any], timeout_s: float) -> tuple[int, bytes]:
    """Status and body. Straight to this host: no proxy is asked for what emp itself runs.

    HTTP/1.0, so that the answer ends with the connection. http.client is not worth its imports here (ssl, email): they
    take as long as the job. Raises OSError, ValueError or IndexError where no answer comes.
    """
    body = msgspec.json.encode(asked)
    head = [f"POST {path} HTTP/1.0", f"Host: {listen.authority}", "Content-Type: application/json"]
    head.append(f"Content-Length: {len(body)}")
    if listen.token is not None:
        head.append(f"Authorization: Bearer {listen.token}")
    answer = bytearray()
    with socket.create_connection((listen.reached_at, listen.port), timeout=timeout_s) as connection:
        connection.sendall("\r\n".join((*head, "", "")).encode("latin-1") + body)
        while chunk := connection.recv(256 * 1024):
            answer += chunk
            if len(answer) > MAX_ANSWER_BYTES:
                raise ValueError("the answer has no end")
    top, _, content = bytes(answer).partition(b"\r\n\r\n")
    return int(top.split(None, 2)[1]), content
