"""`connector_options` of the `http` connector; docs/connectors.md describes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from emp_orch.options.base import WrongOption, only

_wrong = partial(WrongOption, "http")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SECRET = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class FromEnvironment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`{env: NAME}`: the value stands in the worker's environment, not in emp.yaml."""

    env: str


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field is a place in a JSON answer: `data.items.0.id`, or a JSON pointer `/data/items/0/id`.

    Times are in seconds. Paths may hold `{job_id}`; `status_path` and `cancel_path` also `{id}`, the service's own id.
    """

    path: str
    mode: Literal["sync", "poll"] = "sync"
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[str, str | FromEnvironment] = {}
    # `$payload`, `$payload.FIELD` and `$job_id` stand for those values, wherever they are a whole text of it.
    body: Any = "$payload"
    health_path: str = "/"
    # For one answer. None: 30 in mode poll; as long as the job may take in mode sync.
    timeout_s: float | None = None

    result_field: str | None = None
    error_field: str | None = None
    outputs_field: str | None = None
    status_field: str | None = None
    done: tuple[str | int | bool, ...] = ()
    failed: tuple[str | int | bool, ...] = ()
    cancelled: tuple[str | int | bool, ...] = ()
    cancel_path: str | None = None
    cancel_method: Literal["POST", "DELETE"] = "POST"

    id_field: str | None = None
    status_path: str | None = None
    progress_field: str | None = None
    # The value that means "all of it": 100 for a percentage.
    progress_max: float = 1.0
    interval_s: float = 1.0
    max_interval_s: float = 10.0


_POLL_ONLY = ("id_field", "status_path", "progress_field")
_NEEDED_TO_POLL = ("id_field", "status_path", "status_field", "done")


def options_of(given: Mapping[str, Any]) -> Options:
    """`given` as Options. Raises WrongOption, which names the option that is wrong."""
    only("http", given, Options.__struct_fields__)
    if "path" not in given:
        raise _wrong("path", "is missing", "the path that takes a job, for example /generate")
    try:
        options = msgspec.convert(dict(given), Options)
    except msgspec.ValidationError as e:
        what, _, where = str(e).partition(" - at ")
        name = where.strip("`").removeprefix("$").removeprefix(".")
        raise _wrong(name, f"does not fit: {what}", "docs/connectors.md lists them") from e
    _check_paths(options)
    _check_numbers(options)
    for header, value in options.headers.items():
        _check_header(header, value if isinstance(value, str) else "")
    if options.mode == "poll":
        if missing := [n for n in _NEEDED_TO_POLL if not getattr(options, n)]:
            raise _wrong(missing[0], "is missing", f"mode poll needs {', '.join(_NEEDED_TO_POLL)}")
    else:
        if unfit := [n for n in _POLL_ONLY if getattr(options, n) is not None]:
            raise _wrong(unfit[0], "has no meaning in mode sync", "write mode: poll, or remove it")
        if options.status_field and not options.done:
            raise _wrong("done", "is missing", "say which values of status_field mean success")
    return options


def headers_of(options: Options, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers with their secrets. Raises WrongOption, which names the header and the variable, never a value."""
    headers = {}
    for name, value in options.headers.items():
        if isinstance(value, FromEnvironment):
            if value.env not in environ:
                hint = f"set {value.env} in the env of the machine, or name it under its inherit"
                raise _wrong(f"headers.{name}", f"needs the environment variable {value.env}, which is not set", hint)
            value = environ[value.env]
        _check_header(name, value)
        headers[name] = value
    return headers


def from_environment(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The headers of `given` whose values are to come from the environment, with those that `environ` has."""
    headers = given.get("headers")
    named = headers.items() if isinstance(headers, dict) else ()
    asked = {header: str(value.get("env")) for header, value in named if isinstance(value, dict)}
    return {header: environ[name] for header, name in asked.items() if name in environ}


def secrets_of(options: Options, headers: Mapping[str, str]) -> list[str]:
    """The values of `headers` that are secrets: out of the environment, or by what they are called."""
    return [
        value
        for name, value in headers.items()
        if isinstance(options.headers.get(name), FromEnvironment) or _SECRET.search(name)
    ]


def _check_paths(options: Options) -> None:
    for name in ("path", "status_path", "cancel_path", "health_path"):
        path = getattr(options, name)
        if path is None:
            continue
        if not path.startswith("/") or path.startswith("//"):
            raise _wrong(name, "must begin with one /", "the host and port are those of the service", found=path)
        by_id = options.mode == "poll" and name in ("status_path", "cancel_path")
        known = {"health_path": set[str]()}.get(name, {"job_id", "id"} if by_id else {"job_id"})
        if unknown := set(_PLACEHOLDER.findall(path)) - known:
            shown = ", ".join(f"{{{k}}}" for k in sorted(known)) or "none"
            raise _wrong(name, f"holds {{{min(unknown)}}}, which has no value there", f"known there: {shown}")


def _check_numbers(options: Options) -> None:
    for name in ("timeout_s", "progress_max", "interval_s", "max_interval_s"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise _wrong(name, "must be more than 0", "", found=value)


def _check_header(name: str, value: str) -> None:
    if not _HEADER.fullmatch(name) or any(c in value for c in "\r\n\0"):
        raise _wrong(f"headers.{name}", "is not a header: a name and one line of text", "")


def filled(path: str, job_id: str, ref: str) -> str:
    """`path` with its placeholders filled in, each as one step of the path: none that leads elsewhere."""
    return path.replace("{job_id}", _step(job_id)).replace("{id}", _step(ref))


def _step(text: str) -> str:
    # Dots alone are no name, but a way up, however they are quoted.
    return quote(text, safe="") if text.strip(".") else "_"
