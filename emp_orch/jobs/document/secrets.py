"""Secrets of a job: values that its service needs and nobody may read. Kept apart, and forgotten at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.model import JobError, Progress, Result

# What ComfyUI takes for sensitive in a request's extra_data: SENSITIVE_EXTRA_DATA_KEYS of its execution.py.
COMFY_KEYS = ("api_key_comfy_org", "auth_token_comfy_org")
# A shorter one would be found in ordinary words, and they be made unreadable.
MIN_CHARS = 8
MAX_CHARS = 8 * 1024
HIDDEN = "•••"

T = TypeVar("T")


class Secrets(Struct, frozen=True):
    """Name → value. Its text, as logs and tracebacks have it, shows the names alone."""

    values: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self.values))})"

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.values))


def fault_of(value: object) -> str:
    """Why `value` cannot be a secret, without a word of it; empty when it can."""
    if not isinstance(value, str):
        return f"expected text, found {type(value).__name__}"
    if not MIN_CHARS <= len(value) <= MAX_CHARS:
        return f"expected {MIN_CHARS} to {MAX_CHARS} characters, found {len(value)}"
    if not all("!" <= c <= "~" for c in value):
        return "expected visible ASCII characters only"
    return ""


def forgotten(names: tuple[str, ...]) -> str:
    """Why a job cannot run any more that had secrets, in words."""
    them = "was" if len(names) == 1 else "were"
    return f"its {' and '.join(names)} {them} forgotten at its end"


class Redaction:
    """Takes the values of a job's secrets out of what others say: as they are, as JSON has them, as URLs have them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {
            form for v in secrets.values() for form in (v, msgspec.json.encode(v).decode()[1:-1], quote(v, safe=""))
        }
        self._forms = sorted(forms, key=len, reverse=True)  # one may be within another

    def __bool__(self) -> bool:
        return bool(self._forms)

    def text(self, said: str) -> str:
        for form in self._forms:
            said = said.replace(form, HIDDEN)
        return said

    def value(self, said: Any) -> Any:
        """`said`, JSON values or what stands for them, with every text in it redacted, keys too."""
        if isinstance(said, str):
            return self.text(said)
        if isinstance(said, dict):
            return {self.value(k): self.value(v) for k, v in said.items()}
        if isinstance(said, list | tuple):
            return [self.value(v) for v in said]
        return said

    def error(self, said: JobError) -> JobError:
        if not self._forms:
            return said
        return msgspec.structs.replace(said, message=self.text(said.message), detail=self.value(said.detail))

    def result(self, said: Result) -> Result:
        return msgspec.structs.replace(said, detail=self.value(said.detail)) if self._forms else said

    def progress(self, said: Progress) -> Progress:
        return msgspec.structs.replace(said, message=self.text(said.message)) if self._forms else said
