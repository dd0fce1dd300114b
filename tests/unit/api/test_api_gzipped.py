"""Parts that were packed apart are one gzip stream, each readable when it comes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.api.feed.gzipped import HEADER, Text, deflated
from emp_orch.api.stream.sse import accepts_gzip


@given(st.lists(st.binary(max_size=2_000), max_size=6), st.randoms(use_true_random=False))
def test_any_parts_in_any_order_are_one_stream(parts: list[bytes], order: object) -> None:
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip
    assert reader.decompress(HEADER) == b""
    packed = [(p, deflated(p)) for p in parts]
    order.shuffle(packed)  # type: ignore[attr-defined]
    for plain, part in packed:
        assert reader.decompress(part) == plain


def test_a_text_is_packed_once() -> None:
    text = Text(b"x" * 10_000)
    assert text.bytes(packed=False) is text.plain
    assert text.bytes(packed=True) is text.packed
    assert len(text.packed) < 200


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("gzip;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzip-not", False),
        ("", False),
    ],
)
def test_who_takes_gzip(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken
