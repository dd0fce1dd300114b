"""Text compressed once for all clients: parts of a gzip stream that stand by themselves.

Each part is deflated on its own and ends with a full flush, so whatever parts a client is sent one after the other are
one stream (RFC 1951 §3.2.4, RFC 1952), and each can be read when it comes. An event stream has no end, and no trailer.
"""

from __future__ import annotations

import zlib
from functools import cached_property

# RFC 1952 §2.3: deflate, no name, no time, unknown system.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# Reports are much alike: 6 MB become 150 kB in 8 ms, and higher levels take longer for little.
LEVEL = 1


def deflated(data: bytes) -> bytes:
    """`data` as a part of the stream."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


class Text:
    """Bytes that many are sent, plain or packed; packed when the first asks for it."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain

    @cached_property
    def packed(self) -> bytes:
        return deflated(self.plain)

    def bytes(self, *, packed: bool) -> bytes:
        return self.packed if packed else self.plain
