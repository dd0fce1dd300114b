"""Seals: who holds a key of the fleet wrote this document, for this purpose. docs/adr/0033.

Whoever can write in Redis can put any words there. What a machine executes, and what the reconciler believes, counts
only with a seal: HMAC-SHA256 over the purpose and the document, as its last member `seal`, which readers that know
nothing of seals pass over. Keys never enter Redis.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from msgspec import Struct

from emp_orch.errors import EmpError

VERSION = "emp1"
KEY_BYTES = 32
_SEAL = re.compile(rb',"seal":"([0-9a-f]{16})\.([0-9a-f]{64})"\}\Z')
# The longest that a seal makes a document.
_LONGEST = 128


class Forged(EmpError):
    """A document that nobody with the key wrote for this purpose."""


class OtherKey(Forged):
    """Sealed by another key than this one, so perhaps by a former or a coming one."""


class Seal:
    """One key. It is in no `repr`, and two are equal by their key."""

    __slots__ = ("_key", "name")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._key = key
        # Tells keys apart, and nothing of them.
        self.name = hashlib.sha256(b"name " + key).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Seal({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seal) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self.name)

    def derived(self, what: str) -> Seal:
        """The key for `what` that only who has this one can make."""
        return Seal(hmac.digest(self._key, f"{VERSION} key {what}".encode(), hashlib.sha256))

    def hex(self) -> str:
        """The key itself, for a private file."""
        return self._key.hex()

    def sealed(self, purpose: str, document: bytes) -> bytes:
        """`document`, a JSON object with a member at least, with its seal."""
        if not (document.startswith(b'{"') and document.endswith(b"}")):
            raise ValueError("only an object with members can be sealed")
        return document[:-1] + f',"seal":"{self.name}.{self._mac(purpose, document)}"}}'.encode()

    def opened(self, purpose: str, text: str | bytes, where: str) -> bytes:
        """The document in `text`, as it was sealed. Raises Forged, which names `where`."""
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        found = _SEAL.search(raw, max(0, len(raw) - _LONGEST))
        if found is None:
            raise Forged(f"{where} bears no seal: nobody of this fleet wrote it")
        document = raw[: found.start()] + b"}"
        if found[1] != self.name.encode():
            raise OtherKey(f"{where} is sealed by a key that is not this fleet's now")
        if not hmac.compare_digest(self._mac(purpose, document).encode(), found[2]):
            raise Forged(f"{where} bears a seal that does not fit: it was changed, or is meant for another")
        return document

    def _mac(self, purpose: str, document: bytes) -> str:
        return hmac.digest(self._key, f"{VERSION} {purpose}\n".encode() + document, hashlib.sha256).hex()


class Stamp(Struct, frozen=True, kw_only=True, order=True):
    """When a leader said something, for its order: by the leader's epoch, then by its own count."""

    epoch: int = 0
    count: int = 0


NEVER = Stamp()


class CommandKey(Struct, frozen=True, kw_only=True):
    """What a machine is given to know its commands by, in a private file: never through Redis.

    `key` in hexadecimal. What is stamped before `since` is void: whoever gave the file said newer things already.
    """

    fleet: str
    machine: str
    key: str
    since: Stamp = NEVER

    @property
    def seal(self) -> Seal:
        return Seal(bytes.fromhex(self.key))


def for_config(fleet: str, machine_id: str) -> str:
    return f"config {fleet}/{machine_id}"


def for_command(fleet: str, machine_id: str) -> str:
    return f"command {fleet}/{machine_id}"


def for_generation(fleet: str) -> str:
    return f"generation {fleet}"


def for_memory(fleet: str) -> str:
    return f"memory {fleet}"


def for_override(fleet: str) -> str:
    return f"override {fleet}"


def for_request(fleet: str) -> str:
    return f"request {fleet}"


def for_member(fleet: str) -> str:
    return f"member {fleet}"
