"""What is believed of a connector: its words, figures and results as they may be recorded, whatever it gave.

Redis keeps them, every list of jobs reads them, and what cannot be encoded would end the worker.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from emp_orch.connectors.base import MAX_KEPT, MAX_MESSAGE
from emp_orch.fleet.model.observed import ConnectorReport
from emp_orch.jobs.document.model import JobError, Output, Progress, Result

# Structured answers beside an error.
MAX_DETAIL_BYTES = 32 * 1024
MAX_RESULT_BYTES = 1024 * 1024
MAX_KEPT_BYTES = 32 * 1024
MAX_PROGRESS_CHARS = 500
MAX_REF_CHARS = 1_000
MAX_REPORT_CHARS = 1_000
MAX_WARNINGS = 5
MAX_WARNING_CHARS = 300

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def words(text: str, most: int = MAX_MESSAGE) -> str:
    """`text`, at most `most` characters of it, fit for UTF-8."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def error_of(given: JobError) -> JobError:
    """`given` without what is too large or cannot be encoded."""
    return JobError(
        message=words(given.message),
        retryable=given.retryable,
        detail=_detail(given.detail),
        outputs=_outputs(given.outputs),
    )


def _outputs(given: object) -> tuple[Output, ...]:
    """What a failed run kept, as far as it fits: lists of jobs show every job's error."""
    try:
        kept = msgspec.convert(msgspec.to_builtins(given), tuple[Output, ...])
    except (*_UNENCODABLE, msgspec.ValidationError):
        return ()
    found, left = [], MAX_KEPT_BYTES
    for output in kept[:MAX_KEPT]:
        left -= len(msgspec.json.encode(output))
        if left < 0:
            break
        found.append(output)
    return tuple(found)


def _detail(given: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(msgspec.json.encode(given))
    except _UNENCODABLE:
        return {}
    return given if size <= MAX_DETAIL_BYTES else {"omitted_bytes": size}


def fault_of(given: object) -> str:
    """Why `given` cannot be recorded as a result; empty when it can."""
    if not isinstance(given, Result):
        return f"it gave {type(given).__name__} instead of a Result"
    try:
        text = msgspec.json.encode(given)
        msgspec.json.decode(text, type=Result)
    except (*_UNENCODABLE, msgspec.DecodeError) as e:
        return f"its result cannot be recorded: {words(str(e), 500)}"
    if len(text) > MAX_RESULT_BYTES:
        return f"its result has {len(text)} bytes, at most {MAX_RESULT_BYTES} are recorded; larger ones are outputs"
    return ""


def report_of(given: ConnectorReport) -> ConnectorReport:
    """`given` in few words: every look at the fleet reads it of every worker. What it has, the worker finds out."""
    return msgspec.structs.replace(
        given,
        detail=words(given.detail, MAX_REPORT_CHARS),
        version=words(given.version, MAX_REPORT_CHARS),
        warnings=tuple(words(w, MAX_WARNING_CHARS) for w in given.warnings[:MAX_WARNINGS]),
        output_folder=words(given.output_folder, MAX_REPORT_CHARS),
        temp_folder=words(given.temp_folder, MAX_REPORT_CHARS),
        offers="",
        models=0,
        node_classes=0,
        occupied_by=words(given.occupied_by, MAX_REPORT_CHARS),
    )


def progress_of(given: Progress) -> Progress:
    """`given` as a fraction from 0 to 1 and a few words."""
    fraction = given.fraction if math.isfinite(given.fraction) else 0.0
    return Progress(fraction=min(max(fraction, 0.0), 1.0), message=words(given.message, MAX_PROGRESS_CHARS))
