"""Commands as a Redis client writes them: arrays of bulk strings (RESP), and nothing else.

Not hiredis: it makes room for as many words as the first line promises, which is a stranger's word.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Of one command, in words and in bytes of all of them: what services offer is the largest that a machine sends.
MOST_WORDS = 4_096
MAX_BYTES = 4 * 1024**2
_LINE = 16
_COUNT = re.compile(rb"[0-9]{1,9}")


class NoRequest(Exception):
    """What came is no command, or too large a one; the text says which."""


class Requests:
    """Takes bytes as they come, and gives whole commands. Holds one that is not whole, at most MAX_BYTES of it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = 0  # words of the command under way
        self._words: list[bytes] = []
        self._length: int | None = None  # of the word under way, once it is known
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, ...]]:
        """The commands that are whole with it. Raises NoRequest; then nothing more is to be fed."""
        self._buffer += data
        at = 0
        try:
            while (after := self._step(at)) is not None:
                at = after
                if not self._missing and self._words:
                    words, self._words, self._size = tuple(self._words), [], 0
                    yield words
        finally:
            del self._buffer[:at]

    def _step(self, at: int) -> int | None:
        """Take the next line or word: where it ends. None: it is not whole."""
        if self._length is not None:
            end = at + self._length + 2
            if len(self._buffer) < end:
                return None
            if self._buffer[end - 2 : end] != b"\r\n":
                raise NoRequest("a word is not as long as it says")
            self._words.append(bytes(self._buffer[at : end - 2]))
            self._missing, self._length = self._missing - 1, None
            return end
        found = self._line(at)
        if found is None:
            return None
        number, end = found
        if self._missing:
            self._size += number
            if self._size > MAX_BYTES:
                raise NoRequest(f"a command has more than {MAX_BYTES} bytes")
            self._length = number
        elif not 1 <= number <= MOST_WORDS:
            raise NoRequest(f"a command has {number} words; 1 to {MOST_WORDS} are taken")
        else:
            self._missing = number
        return end

    def _line(self, at: int) -> tuple[int, int] | None:
        """The number that a line holds, and where it ends."""
        end = self._buffer.find(b"\r\n", at, at + _LINE)
        if end < 0:
            if len(self._buffer) - at >= _LINE or (len(self._buffer) > at and not self._begins(at)):
                raise NoRequest("what came is no command as Redis clients write them")
            return None
        if not self._begins(at) or _COUNT.fullmatch(self._buffer, at + 1, end) is None:
            raise NoRequest("what came is no command as Redis clients write them")
        return int(self._buffer[at + 1 : end]), end + 2

    def _begins(self, at: int) -> bool:
        return self._buffer[at] == (b"$" if self._missing else b"*")[0]
