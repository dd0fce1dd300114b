"""PNG in pure Python: written without filters, read as most programs write it.

Source: PNG specification, third edition (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# More than any picture that a stand-in is given.
MAX_PIXELS = 64 * 1024 * 1024
# Samples a pixel, by colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class NotPng(ValueError):
    """Not a PNG, a broken one, or one of a kind that is not read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a file holds. `alpha` is None when it has none; `texts` are its tEXt chunks."""

    width: int
    height: int
    rgb: bytes
    alpha: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode(picture: Picture) -> bytes:
    """The file. Texts are kept as Latin-1 under their keys, as ComfyUI keeps its prompt."""
    width, height, rgb = picture.width, picture.height, picture.rgb
    pixels, colour_type, size = rgb, 2, 3
    if picture.alpha is not None:
        with_alpha = bytearray(4 * width * height)
        for channel in range(3):
            with_alpha[channel::4] = rgb[channel::3]
        with_alpha[3::4] = picture.alpha
        pixels, colour_type, size = bytes(with_alpha), 6, 4
    row = size * width
    lines = b"".join(b"\x00" + pixels[y * row : (y + 1) * row] for y in range(height))
    parts = [SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))]
    parts += [
        _chunk(b"tEXt", key.encode("latin-1", "replace")[:79] + b"\x00" + text.encode("latin-1", "replace"))
        for key, text in picture.texts.items()
    ]
    return b"".join([*parts, _chunk(b"IDAT", zlib.compress(lines, 4)), _chunk(b"IEND", b"")])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise NotPng("it is cut short")
        yield data[at + 4 : at + 8], body
        at += 12 + length


def decode(data: bytes) -> Picture:
    """The picture in `data`: 8 bits a sample, any colour type, not interlaced. Raises NotPng."""
    if not data.startswith(SIGNATURE):
        raise NotPng("it is not a PNG")
    header, palette, transparency, packed, texts = b"", b"", b"", bytearray(), {}
    for kind, body in _chunks(data):
        match kind:
            case b"IHDR":
                header = body
            case b"PLTE":
                palette = body
            case b"tRNS":
                transparency = body
            case b"IDAT":
                packed += body
            case b"tEXt":
                key, _, text = body.partition(b"\x00")
                texts[key.decode("latin-1")] = text.decode("latin-1")
            case _:
                pass
    if len(header) != 13:
        raise NotPng("it has no header")
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or interlaced or colour_type not in _SAMPLES:
        raise NotPng(f"{depth} bits a sample, colour type {colour_type}, interlaced {interlaced}: not read here")
    if not 0 < width * height <= MAX_PIXELS:
        raise NotPng(f"{width} × {height} pixels")
    samples = _unfiltered(bytes(packed), width, height, _SAMPLES[colour_type])
    rgb, alpha = _colours(samples, colour_type, palette, transparency)
    return Picture(width=width, height=height, rgb=rgb, alpha=alpha, texts=texts)


def _unfiltered(packed: bytes, width: int, height: int, size: int) -> bytes:
    row = width * size
    opened = zlib.decompressobj()
    try:
        lines = opened.decompress(packed, height * (row + 1))
    except zlib.error as e:
        raise NotPng(str(e)) from e
    if len(lines) != height * (row + 1):
        raise NotPng("it has too few pixels")
    out, before = bytearray(), bytes(row)
    for y in range(height):
        at = y * (row + 1)
        before = _line(lines[at], bytearray(lines[at + 1 : at + 1 + row]), before, size)
        out += before
    return bytes(out)


def _line(kind: int, line: bytearray, above: bytes, size: int) -> bytes:
    """One line without its filter."""
    if kind == 0:
        return bytes(line)
    for i in range(len(line)):
        a = line[i - size] if i >= size else 0
        b, c = above[i], above[i - size] if i >= size else 0
        match kind:
            case 1:
                guess = a
            case 2:
                guess = b
            case 3:
                guess = (a + b) // 2
            case 4:
                p = a + b - c
                guess = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            case _:
                raise NotPng(f"filter {kind}")
        line[i] = (line[i] + guess) & 255
    return bytes(line)


def _colours(samples: bytes, colour_type: int, palette: bytes, transparency: bytes) -> tuple[bytes, bytes | None]:
    match colour_type:
        case 2:
            return samples, None
        case 3:
            if len(palette) < 3 * (max(samples, default=0) + 1):
                raise NotPng("its palette is too short")
            rgb = b"".join(palette[3 * s : 3 * s + 3] for s in samples)
            opaque = transparency.ljust(256, b"\xff")
            return rgb, bytes(opaque[s] for s in samples) if transparency else None
        case 6:
            rgb_of = bytearray(len(samples) // 4 * 3)
            for channel in range(3):
                rgb_of[channel::3] = samples[channel::4]
            return bytes(rgb_of), samples[3::4]
        case _:
            size = _SAMPLES[colour_type]
            grey = bytearray(len(samples) // size * 3)
            for channel in range(3):
                grey[channel::3] = samples[::size]
            return bytes(grey), samples[1::2] if colour_type == 4 else None
