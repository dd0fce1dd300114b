"""Pictures and masks that go from node to node: described until their pixels are asked for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import assert_never

# Sixteen levels: a picture of 256 × 256 then takes some 30 KiB.
_WAVE = bytes(17 * int(7.5 + 8 * math.cos(2 * math.pi * i / 256) * 0.999) for i in range(256))
_WAVE_TWICE = _WAVE * 2
_INVERTED = bytes(255 - i for i in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solid:
    """One colour, 0xRRGGBB."""

    color: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a sampler makes: it depends on text and seed alone."""

    text: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Three bytes a pixel, row by row."""

    rgb: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture of a batch."""

    width: int
    height: int
    source: Solid | Drawn | Pixels

    def rgb(self) -> bytes:
        """Three bytes a pixel. A large drawn one takes about a second."""
        match self.source:
            case Solid(color=color):
                return color.to_bytes(3, "big") * (self.width * self.height)
            case Drawn(text=text, seed=seed):
                return _waves(text, seed, self.width, self.height)
            case Pixels(rgb=rgb):
                return rgb
            case _:
                assert_never(self.source)

    def inverted(self) -> Image:
        if isinstance(self.source, Solid):
            return Image(width=self.width, height=self.height, source=Solid(color=0xFFFFFF ^ self.source.color))
        source = Pixels(rgb=self.rgb().translate(_INVERTED))
        return Image(width=self.width, height=self.height, source=source)

    def scaled(self, width: int, height: int) -> Image:
        """By the nearest pixel."""
        if isinstance(self.source, Solid):
            return Image(width=width, height=height, source=self.source)
        rgb, across = self.rgb(), [3 * (x * self.width // width) for x in range(width)]
        rows = []
        for y in range(height):
            at = y * self.height // height * self.width * 3
            rows.append(b"".join(rgb[at + x : at + x + 3] for x in across))
        return Image(width=width, height=height, source=Pixels(rgb=b"".join(rows)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """One byte a pixel; 255 is masked."""

    width: int
    height: int
    plane: bytes

    def image(self) -> Image:
        """As a grey picture."""
        rgb = bytearray(3 * len(self.plane))
        for channel in range(3):
            rgb[channel::3] = self.plane
        return Image(width=self.width, height=self.height, source=Pixels(rgb=bytes(rgb)))


def _waves(text: str, seed: int, width: int, height: int) -> bytes:
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
    rows = bytearray()
    for y in range(height):
        line = bytearray(3 * width)
        for c, (across, down) in enumerate(channels):
            shift = down[y]
            line[c::3] = across.translate(_WAVE_TWICE[shift : shift + 256])
        rows += line
    return bytes(rows)
