"""Checked values from queries and bodies; every refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from emp_orch.web.errors import Refused

T = TypeVar("T")

MAX_BODY_BYTES = 1024 * 1024

# What machines, programs, jobs and services are called.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

_NAME = re.compile(NAME, re.ASCII)


def only_known(request: web.Request, names: Sequence[str]) -> None:
    """Refuse a filter that is misspelt: without it everything would be listed. `token` is the guard's."""
    for name in request.query:
        if name not in names and name != "token":
            raise Refused(400, f"there is no parameter {name[:64]!r} here; there are: {', '.join(names)}")


def whole_number(request: web.Request, field: str, *, default: int, low: int, high: int) -> int:
    text = request.query.get(field)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
        raise Refused(400, f"{field}: expected a whole number from {low} to {high}")
    return int(text)


def name_in_path(request: web.Request, field: str) -> str:
    """A machine's or program's name from the path."""
    text = request.match_info[field]
    if not _NAME.fullmatch(text):
        raise Refused(400, f"{field}: expected a name of letters, digits, '.', '_' and '-'")
    return text


def one_of(request: web.Request, field: str, choices: Sequence[str]) -> str | None:
    """The value of a query parameter, which must be one of `choices`; None when it is not given."""
    text = request.query.get(field)
    if text is not None and text not in choices:
        raise Refused(400, f"{field}: expected one of {', '.join(choices)}")
    return text


def name_in_query(request: web.Request, field: str) -> str | None:
    text = request.query.get(field)
    if text is not None and not _NAME.fullmatch(text):
        raise Refused(400, f"{field}: expected a name of letters, digits, '.', '_' and '-'")
    return text


async def read_body(request: web.Request, *, most: int) -> bytes:
    """The request's body. Raises Refused (413) past `most` bytes, before it is read where its length is told."""
    if (request.content_length or 0) > most:
        raise Refused(413, f"the request body is larger than {most} bytes")
    raw = await request.read()
    if len(raw) > most:
        raise Refused(413, f"the request body is larger than {most} bytes")
    return raw


async def body(request: web.Request, type_: type[T], *, empty: T | None = None) -> T:
    """The request's JSON body as `type_`; `empty` stands for no body at all."""
    raw = await read_body(request, most=MAX_BODY_BYTES)
    if not raw.strip() and empty is not None:
        return empty
    return decoded(raw, msgspec.json.Decoder(type_))


def decoded(raw: bytes | str, decoder: msgspec.json.Decoder[T]) -> T:
    """`raw` as `decoder` checks it. The error names the field that does not fit."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as e:
        text, _, where = str(e).partition(" - at `$")
        field = where.rstrip("`").lstrip(".")
        raise Refused(400, f"{field or 'body'}: {text}") from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(400, f"body: not JSON: {e}") from e
