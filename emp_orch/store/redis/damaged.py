"""What stands in Redis and does not fit, whoever wrote it: documents, and keys of another type than emp's.

Every document is decoded within bounds: its length, its depth (RecursionError), and numbers of at most 64 bits, as all
that emp writes again (MessagePack, Lua, other languages) can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from redis import exceptions as rexc

T = TypeVar("T")

# Deep nesting is no DecodeError: left out, one such document would end its reader.
DAMAGED = (msgspec.DecodeError, RecursionError)

# A report, an override, a request: a hundred times what a large one takes.
MAX_DOCUMENT_BYTES = 1024 * 1024
# One document about a whole fleet: 10,000 machines take some ten MB.
MAX_FLEET_BYTES = 64 * 1024 * 1024

REPAIR = "`emp doctor` names what is not emp's, `emp doctor --repair` puts it aside"

_TO_NOUGHT = bytes.maketrans(b"123456789", b"000000000")
# So many digits in a row may be a number of more than 64 bits.
_LONG = b"0" * 19


class KeyDamaged(rexc.ResponseError):
    """What a command met under `key` is not what emp keeps there; `key` is empty where a script met it."""

    def __init__(self, key: str, said: str) -> None:
        super().__init__(said)
        self.key = key

    @property
    def words(self) -> str:
        what = f"the key {self.key!r}" if self.key else "one of emp's keys"
        return f"{what} in Redis is damaged: {_plain(str(self))}"


def _plain(said: str) -> str:
    if "WRONGTYPE" in said:
        return "it is of another type than emp's"
    if "target stream top item" in said or "exhausted the last possible ID" in said:
        return "its last id is the highest there is, and nothing can follow it"
    return said[:300]


def decoder(type_: type[T], most: int = MAX_DOCUMENT_BYTES) -> Callable[[str | bytes], T]:
    """A function that decodes JSON documents of at most `most` characters. It raises DAMAGED."""
    typed = msgspec.json.Decoder(type_)

    def decode(text: str | bytes) -> T:
        if len(text) > most:
            raise msgspec.ValidationError(f"it has {len(text)} characters, more than {most}")
        found = typed.decode(text)
        raw = text.encode() if isinstance(text, str) else text
        if _LONG in raw.translate(_TO_NOUGHT):
            _check_numbers(msgspec.json.decode(raw))
        return found

    return decode


def _check_numbers(value: Any) -> None:
    match value:
        case int() if not -(2**63) <= value < 2**63:
            raise msgspec.ValidationError("it holds a number of more than 64 bits")
        case dict():
            for part in value.values():
                _check_numbers(part)
        case list():
            for part in value:
                _check_numbers(part)
        case _:
            return
