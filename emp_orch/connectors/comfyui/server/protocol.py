"""What ComfyUI says, as values: its messages, records, refusals and failures.

Source: ComfyUI's server.py and execution.py (https://github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED, RunFailed

Workflow = dict[str, Any]


class Message(Struct):
    type: str
    data: dict[str, Any] = {}


class Status(Struct):
    status_str: str = ""
    completed: bool = False
    messages: list[tuple[str, dict[str, Any]]] = []


class Record(Struct):
    """One entry of /history. `prompt` is the row of the queue: number, id, workflow, extra_data, output nodes."""

    outputs: dict[str, dict[str, Any]] = {}
    status: Status | None = None
    prompt: list[Any] = []

    def cached(self) -> frozenset[str]:
        """The nodes whose result the service had from an earlier run."""
        told = [data.get("nodes") for type_, data in (self.status.messages if self.status else [])]
        return frozenset(n for nodes in told if isinstance(nodes, list) for n in nodes if isinstance(n, str))


class Queued(Struct):
    """`node_errors`: a part of the workflow does not fit, and the rest of it runs."""

    prompt_id: str
    node_errors: dict[str, Any] | list[Any] = {}


class QueueState(Struct):
    queue_running: list[list[Any]] = []
    queue_pending: list[list[Any]] = []


class Refusal(Struct):
    error: dict[str, Any] | str = ""
    node_errors: dict[str, Any] | list[Any] = {}


class File(Struct, frozen=True):
    filename: str
    subfolder: str = ""
    type: str = "output"


_PICTURE = 1
_KINDS = {1: "image/jpeg", 2: "image/png"}


def picture_of(frame: bytes) -> tuple[str, bytes] | None:
    """Type and bytes of the picture that a binary message holds; None where it is something else."""
    if len(frame) < 8 or int.from_bytes(frame[:4], "big") != _PICTURE:
        return None
    kind = _KINDS.get(int.from_bytes(frame[4:8], "big"))
    return None if kind is None else (kind, frame[8:])


class Interrupted(RunFailed):
    """Someone stopped the run on the service, so that its end says nothing about the job."""

    def __init__(self) -> None:
        super().__init__("the run was interrupted on the service", retryable=False)


class OutOfMemory(RunFailed):
    """The GPU's memory was too small, or too full. Another GPU may have what this one lacked."""


def node_failure(data: dict[str, Any]) -> RunFailed:
    """The failure that an `execution_error` message tells of."""
    kind = str(data.get("exception_type", ""))
    words = str(data.get("exception_message", "")).strip() or kind or "no reason was given"
    kept: dict[str, Any] = {k: data[k] for k in ("node_id", "node_type", "exception_type", "traceback") if k in data}
    where = f"{data.get('node_type', 'node')} (node {data.get('node_id', '?')})"
    if "OutOfMemory" in kind or "out of memory" in words.lower():
        return OutOfMemory(f"{where}: {words}", retryable=True, detail=kept)
    # Another GPU may be in order.
    of_the_gpu = "AcceleratorError" in kind or "CUDA error" in words
    return RunFailed(f"{where}: {words}", retryable=of_the_gpu, detail=kept)


def node_lines(node_errors: dict[str, Any]) -> list[str]:
    """What is wrong with each node, one line for each fault."""
    return [
        f"{node.get('class_type', 'node')} {node_id}: "
        + ": ".join(str(wrong[k]) for k in ("message", "details") if wrong.get(k))
        for node_id, node in node_errors.items()
        if isinstance(node, dict)
        for wrong in (node["errors"] if isinstance(node.get("errors"), list) else [])
        if isinstance(wrong, dict)
    ]


def partly_refused(node_errors: dict[str, Any]) -> RunFailed:
    """The failure of a workflow of which the service would run a part only."""
    lines = node_lines(node_errors) or [f"node {node_id}" for node_id in node_errors]
    words = f"a part of the workflow does not fit, and ComfyUI would leave it out: {'; '.join(lines)}"
    hint = 'mend it, or take what the rest makes: "partial": true'
    return RunFailed(f"{words} ({hint})", retryable=False, detail={"node_errors": node_errors})


def refusal(status: int, body: bytes) -> RunFailed:
    """The failure that an answer to POST /prompt other than 200 tells of, in the service's own words."""
    retryable = status >= 500 or status == 429
    try:
        said = msgspec.json.decode(body, type=Refusal)
    except MALFORMED:
        said = Refusal()
    error = said.error if isinstance(said.error, dict) else {"message": said.error}
    lines = [str(error[k]) for k in ("message", "details") if error.get(k)]
    node_errors = said.node_errors if isinstance(said.node_errors, dict) else {}
    if not any("\n" in line for line in lines):  # newer versions list the nodes in `details` themselves
        lines += node_lines(node_errors)
    text = ": ".join(lines) or f"the service answered {status}: {body[:500].decode(errors='replace')}"
    return RunFailed(text, retryable=retryable, detail={"error": error, "node_errors": node_errors} if lines else {})


def check(record: Record) -> None:
    """Raise RunFailed unless the service says that the run succeeded. Old versions keep no status."""
    status = record.status
    if status is None or (status.completed and status.status_str != "error"):
        return
    for type_, data in status.messages:
        if type_ == "execution_error":
            raise node_failure(data)
        if type_ == "execution_interrupted":
            raise Interrupted
    raise RunFailed(f"the service ended the run as {status.status_str or 'not completed'}", retryable=False)


def files_of(record: Record) -> Iterator[tuple[str, File]]:
    """The files of a record: what was saved, or the previews when nothing was."""
    found = [
        (node_id, msgspec.convert(entry, File))
        for node_id, made in record.outputs.items()
        for entries in made.values()
        if isinstance(entries, list)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str)
    ]
    saved = [f for f in found if f[1].type != "temp"]
    return iter(saved or found)


def texts_of(record: Record) -> Iterator[tuple[str, str]]:
    for node_id, made in record.outputs.items():
        text = made.get("text")
        lines = [t for t in text if isinstance(t, str)] if isinstance(text, list) else []
        if lines:
            yield node_id, "\n".join(lines)


def parse_workflow(value: object) -> Workflow:
    """`value` as a workflow in ComfyUI's API format. Raises RunFailed; the service checks the rest."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as e:
            raise RunFailed(f"the workflow is not JSON: {e}", retryable=False) from e
    if not isinstance(value, dict):
        raise RunFailed("the workflow must be an object of nodes (ComfyUI: Save (API Format))", retryable=False)
    if "nodes" in value and "links" in value:
        raise RunFailed(
            "the workflow is in the editor's format: export it with ComfyUI's Save (API Format)", retryable=False
        )
    return value
