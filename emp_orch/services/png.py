"""Small PNG images drawn from text and a seed, in pure Python.

Source: PNG specification, third edition (https://www.w3.org/TR/png-3/), colour type 2, filter 0.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Sixteen levels: a picture of 256 × 256 then takes some 30 KiB.
_WAVE = bytes(17 * int(7.5 + 8 * math.cos(2 * math.pi * i / 256) * 0.999) for i in range(256))
_WAVE_TWICE = _WAVE * 2


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _rows(text: str, seed: int, width: int, height: int) -> bytes:
    """Three colour waves; their directions and phases come from the digest of `text` and `seed`."""
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    channels = []
    for c in range(3):
        fx, fy, phase, bend = digest[c * 4 : c * 4 + 4]
        speed_x, speed_y = 0.6 + fx / 128, 0.6 + fy / 128
        bend_width = 16 + bend % 64
        across = bytes(int(x * speed_x + bend_width * math.sin(x / bend_width)) % 256 for x in range(width))
        down = [int(y * speed_y + bend_width * math.cos(y / bend_width) + phase) % 256 for y in range(height)]
        channels.append((across, down))
    lines = []
    for y in range(height):
        line = bytearray(3 * width)
        for c, (across, down) in enumerate(channels):
            shift = down[y]
            line[c::3] = across.translate(_WAVE_TWICE[shift : shift + 256])
        lines.append(b"\x00" + line)
    return b"".join(lines)


def draw(text: str, seed: int, *, width: int = 256, height: int = 256, note: str = "") -> bytes:
    """A PNG of `width` × `height` pixels whose picture depends on `text` and `seed` only.

    `note` is kept in the file as text under the key `prompt`, as ComfyUI does. ASCII.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", header)]
    if note:
        parts.append(_chunk(b"tEXt", b"prompt\x00" + note.encode("ascii", "replace")))
    parts.append(_chunk(b"IDAT", zlib.compress(_rows(text, seed, width, height), 6)))
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)
