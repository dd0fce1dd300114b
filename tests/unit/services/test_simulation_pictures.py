"""The simulation's PNG files and names of files: what other programs write is read, what leaves a folder is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from emp_orch.services.simulation import files, png
from emp_orch.services.simulation.images import Image, Pixels, Solid

ROWS = [bytes([10 * y + x for x in range(12)]) for y in range(4)]
RGB = b"".join(ROWS)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def file_of(
    lines: bytes, *, colour_type: int = 2, depth: int = 8, more: bytes = b"", size: tuple[int, int] = (4, 4)
) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return png.SIGNATURE + b"".join(parts)


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def filtered(kind: int) -> bytes:
    """The rows, each with this filter."""
    out, above = bytearray(), bytes(12)
    for row in ROWS:
        out.append(kind)
        for i, value in enumerate(row):
            a, b, c = (row[i - 3] if i >= 3 else 0), above[i], (above[i - 3] if i >= 3 else 0)
            out.append((value - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) % 256)
        above = row
    return bytes(out)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_is_read(kind: int) -> None:
    assert png.decode(file_of(filtered(kind))).rgb == RGB


def test_what_is_written_is_read_with_its_texts_and_alpha() -> None:
    alpha = bytes(range(16))
    made = png.Picture(width=4, height=4, rgb=RGB, alpha=alpha, texts={"prompt": "{}"})
    assert png.decode(png.encode(made)) == made


def test_palettes_and_greys_are_read() -> None:
    palette = chunk(b"PLTE", b"\xff\x00\x00\x00\xff\x00") + chunk(b"tRNS", b"\x80")
    lines = b"\x00\x00\x01" * 2
    found = png.decode(file_of(lines, colour_type=3, more=palette, size=(2, 2)))
    assert found.rgb == b"\xff\x00\x00\x00\xff\x00" * 2 and found.alpha == b"\x80\xff" * 2
    assert png.decode(file_of(b"\x00\x05\x06", colour_type=0, size=(2, 1))).rgb == b"\x05\x05\x05\x06\x06\x06"
    found = png.decode(file_of(b"\x00\x05\x80", colour_type=4, size=(1, 1)))
    assert found.rgb == b"\x05\x05\x05" and found.alpha == b"\x80"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GIF89a", id="another kind"),
        pytest.param(png.SIGNATURE, id="nothing behind"),
        pytest.param(file_of(filtered(0))[:60], id="cut short"),
        pytest.param(file_of(b"\x00" * 5), id="too few pixels"),
        pytest.param(file_of(b"\x07" + bytes(12), size=(4, 1)), id="an unknown filter"),
        pytest.param(file_of(filtered(0), depth=16), id="16 bits"),
        pytest.param(file_of(b"\x00\x00\x00", size=(100_000, 100_000)), id="too large"),
        pytest.param(file_of(b"\x00\x05", colour_type=3, size=(1, 1)), id="no palette"),
    ],
)
def test_what_is_no_png_is_refused(content: bytes) -> None:
    with pytest.raises(png.NotPng):
        png.decode(content)


def test_pictures_are_scaled_and_inverted() -> None:
    solid = Image(width=2, height=2, source=Solid(color=0x0102FF))
    assert solid.inverted().rgb() == b"\xfe\xfd\x00" * 4 and solid.scaled(1, 3).rgb() == b"\x01\x02\xff" * 3
    pixels = Image(width=2, height=1, source=Pixels(rgb=b"\x00\x00\x00\xff\xff\xff"))
    assert pixels.scaled(4, 2).rgb() == (b"\x00" * 6 + b"\xff" * 6) * 2
    assert pixels.inverted().rgb() == b"\xff\xff\xff\x00\x00\x00"


def test_a_save_begins_behind_the_highest_number(tmp_path: Path) -> None:
    for name in ("a_00007_.png", "a_00003_.png", "a_9", "a_x_.png", "ab_00099_.png", "a_00012.webp"):
        (tmp_path / name).write_bytes(b"")
    found = files.save_path("a", tmp_path, width=64, height=32)
    assert found.counter == 13 and found.file(1) == "a_00014_.png"
    found = files.save_path("sub/%width%x%height%_%batch_num%", tmp_path, width=64, height=32)
    assert (found.subfolder, found.file(2)) == ("sub", "64x32_2_00003_.png") and found.folder.is_dir()


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "sub/../../x"])
def test_a_prefix_stays_inside(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(files.Outside):
        files.save_path(prefix, tmp_path / "output", width=1, height=1)
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../../x", "x\x00.png"])
def test_a_name_stays_inside(tmp_path: Path, name: str) -> None:
    assert files.inside(tmp_path / "output", name) is None
