"""Commands as they come from a stranger: whole or in pieces, and what is none."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.api.gate.requests import MAX_BYTES, MOST_WORDS, NoRequest, Requests


def packed(*words: bytes) -> bytes:
    pack: Any = hiredis.pack_command
    made: bytes = pack(words)
    return made


@given(
    st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), max_size=5),
    st.lists(st.integers(min_value=1, max_value=50), min_size=1),
)
def test_commands_come_out_as_they_went_in_however_they_are_cut(commands: list[list[bytes]], cuts: list[int]) -> None:
    raw = b"".join(packed(*words) for words in commands)
    requests, at, turn = Requests(), 0, 0
    found: list[tuple[bytes, ...]] = []
    while at < len(raw):
        size = cuts[turn % len(cuts)]
        found += requests.feed(raw[at : at + size])
        at, turn = at + size, turn + 1
    assert found == [tuple(words) for words in commands]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"PING\r\n", "no command"),
        (b"GET / HTTP/1.1\r\n", "no command"),
        (b"*0\r\n", "0 words"),
        (b"*-1\r\n", "no command"),
        (b"*1000000000\r\n", "no command"),
        (b"*%d\r\n" % (MOST_WORDS + 1), "words"),
        (b"*1\r\n:1\r\n", "no command"),
        (b"*1\r\n*1\r\n", "no command"),
        (b"*1\r\n$-1\r\n", "no command"),
        (b"*1\r\n$1_0\r\n", "no command"),
        (b"*1\r\n$%d\r\n" % (MAX_BYTES + 1), "bytes"),
        (b"*2\r\n$1\r\na\r\n$%d\r\n" % MAX_BYTES, "bytes"),
        (b"*1\r\n$4\r\nPINGxx", "as long as it says"),
        (b"*" + b"0" * 100, "no command"),
    ],
)
def test_what_is_no_command_ends_it(raw: bytes, why: str) -> None:
    with pytest.raises(NoRequest, match=why):
        list(Requests().feed(raw))


def test_half_a_command_is_held_and_costs_nothing_to_look_at_again() -> None:
    requests = Requests()
    raw = packed(*[b"x"] * MOST_WORDS)
    for i in range(len(raw) - 1):
        assert not list(requests.feed(raw[i : i + 1]))
    assert list(requests.feed(raw[-1:])) == [(b"x",) * MOST_WORDS]
