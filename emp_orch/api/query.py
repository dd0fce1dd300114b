"""Checked values from queries and bodies; every refusal names the field."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from aiohttp import web

from emp_orch.web.errors import Refused

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


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


async def body(request: web.Request, type_: type[T], *, empty: T | None = None) -> T:
    """The request's JSON body as `type_`; `empty` stands for no body at all."""
    raw = await request.read()
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
