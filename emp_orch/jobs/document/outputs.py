"""What an output may be called, and what is believed of a record or a URL: nothing leads out of a job's folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container
from typing import Protocol

MAX_NAME_BYTES = 200
# A run's share of a longer name is its end: `.safetensors` stays.
MAX_SUFFIX_BYTES = 24
UNKNOWN_TYPE = "application/octet-stream"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]{1,80}/[A-Za-z0-9!#$&^_.+-]{1,80})(?:;.*?charset=\"?([A-Za-z0-9._-]{1,40}))?")
# Separators of any system, and what shells and fsspec take for patterns.
_RESERVED = frozenset('/\\:*?"<>|[]{}')


class Recorded(Protocol):
    """What is read of an output's record: jobs/model.Output, or as much of it as somebody was told."""

    @property
    def name(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def path(self) -> str: ...


def is_safe_id(text: str) -> bool:
    """Whether `text` can be a job's or a run's folder: no separator, no leading dot, no pattern."""
    return _ID.fullmatch(text) is not None


def safe_name(name: str) -> str:
    """The file name for an output that its service calls `name`; already safe ones stay as they are."""
    shown = "".join("_" if c in _RESERVED or _invisible(c) else c for c in unicodedata.normalize("NFC", name))
    return _cut(shown.strip(". ")) or "output"


def is_safe_name(name: str) -> bool:
    """Whether `name` is one that `safe_name` gives."""
    return bool(name) and safe_name(name) == name


def unique_name(name: str, taken: Container[str]) -> str:
    """`name`, or `name-2`, `name-3` … before its ending; `taken` holds case-folded names."""
    found, count = name, 1
    while found.casefold() in taken:
        count += 1
        stem, suffix = _parted(name)
        mark = f"-{count}"
        found = _head(stem, MAX_NAME_BYTES - len(mark) - len(suffix.encode())) + mark + suffix
    return found


def safe_content_type(text: str) -> str:
    """`text` as type, subtype and charset; application/octet-stream for anything that is not a content type."""
    match = _TYPE.match(text.strip())
    if match is None:
        return UNKNOWN_TYPE
    kind, charset = match.group(1).lower(), match.group(2)
    return f"{kind}; charset={charset.lower()}" if charset else kind


def url_holds_login(url: str) -> bool:
    """Whether a store's URL holds `user:password@`; a name alone, as in abfs://container@account, is no secret."""
    user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    return bool(at) and ":" in user


def location_of(output: Recorded) -> tuple[str, str] | None:
    """Run and file of a recorded output; None when the record is not one that a save makes."""
    run, separator, file = output.path.partition("/")
    fits = separator and is_safe_id(run) and is_safe_name(file)
    return (run, file) if fits and _SHA256.fullmatch(output.sha256) and output.size >= 0 else None


def _invisible(c: str) -> bool:
    """Control and format characters, surrogates, line separators: what a terminal or page obeys, not shows."""
    return unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")


def _parted(name: str) -> tuple[str, str]:
    """Stem and ending; an overlong ending is part of the stem."""
    at = name.rfind(".")
    if at <= 0 or len(name[at:].encode()) > MAX_SUFFIX_BYTES:
        return name, ""
    return name[:at], name[at:]


def _cut(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, suffix = _parted(name)
    return _head(stem, MAX_NAME_BYTES - len(suffix.encode())) + suffix


def _head(text: str, size: int) -> str:
    """As much of `text` as fits into `size` bytes, in whole characters, not ending in a dot or blank."""
    return text.encode()[:size].decode(errors="ignore").rstrip(". ")
