"""Tokens of `emp machine join`: what opens the door, and all that does not."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import msgspec
import pytest

from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.join_tokens import JoinTokens

NOW_S = 1_000_000.0
LATER_S = int(NOW_S) + 60


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    return layout


@pytest.fixture
def tokens(layout: Layout) -> JoinTokens:
    return JoinTokens(layout)


def opens(tokens: JoinTokens, token: str, *, fleet: str = "f", machine: str = "m", now_s: float = NOW_S) -> bool:
    return tokens.opens(token, fleet, machine, now_s=now_s)


def test_a_token_opens_for_its_machine_until_it_expires(tokens: JoinTokens) -> None:
    token = tokens.issue("f", "m", expires_s=LATER_S)
    assert opens(tokens, token)
    assert opens(tokens, token, now_s=LATER_S - 1)
    assert not opens(tokens, token, now_s=LATER_S)


def test_a_token_without_an_end_lasts(tokens: JoinTokens) -> None:
    assert opens(tokens, tokens.issue("f", "m", expires_s=None), now_s=NOW_S * 1_000)


def test_another_machine_and_another_fleet_are_not_opened(tokens: JoinTokens, tmp_path: Path) -> None:
    token = tokens.issue("f", "m", expires_s=None)
    assert not opens(tokens, token, machine="m2")
    assert not opens(tokens, token, fleet="f2")
    other = Layout(tmp_path / "other")
    other.control.mkdir(parents=True)
    assert not opens(tokens, JoinTokens(other).issue("f", "m", expires_s=None))


def test_what_was_revoked_opens_no_more_and_what_comes_after_does(tokens: JoinTokens) -> None:
    old, beside = tokens.issue("f", "m", expires_s=None), tokens.issue("f", "m2", expires_s=None)
    password = tokens.password("f", "m")
    tokens.revoke("m")
    assert not opens(tokens, old)
    assert opens(tokens, beside, machine="m2")
    assert opens(tokens, tokens.issue("f", "m", expires_s=None))
    assert tokens.password("f", "m") != password


def forged(token: str, **changes: object) -> str:
    """The token with another text under the same signature."""
    version, payload, mac = token.split(".")
    said = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="))
    text = base64.urlsafe_b64encode(msgspec.json.encode({**said, **changes})).decode().rstrip("=")
    return f"{version}.{text}.{mac}"


def test_a_forged_token_opens_nothing(tokens: JoinTokens) -> None:
    token = tokens.issue("f", "m", expires_s=LATER_S)
    assert opens(tokens, forged(token))  # nothing changed: the forger above is a sound one
    assert not opens(tokens, forged(token, expires_s=None))
    assert not opens(tokens, forged(token, machine="m2"), machine="m2")
    assert not opens(tokens, forged(token, era=1))


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "A", lambda t: "emp2" + t[4:], lambda t: t.upper()])
def test_a_damaged_token_opens_nothing(tokens: JoinTokens, change: object) -> None:
    assert callable(change)
    assert not opens(tokens, change(tokens.issue("f", "m", expires_s=None)))


@pytest.mark.parametrize("token", ["", ".", "..", "emp1..", "a.b.c", "emp1.e30.\udcff", "é" * 50, "x" * 1_000_000])
def test_what_is_no_token_opens_nothing(tokens: JoinTokens, token: str) -> None:
    assert not opens(tokens, token)
    tokens.issue("f", "m", expires_s=None)
    assert not opens(tokens, token)


def test_the_key_is_for_its_owner_only_and_lasts(tokens: JoinTokens, layout: Layout) -> None:
    token = tokens.issue("f", "m", expires_s=None)
    path = layout.control / "join.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert opens(JoinTokens(layout), token)
    assert JoinTokens(layout).password("f", "m") == tokens.password("f", "m") != tokens.password("f", "m2")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"key":"00"}', b'{"key":"zz"}', b"\xff"])
def test_a_damaged_key_is_told_without_its_content(tokens: JoinTokens, layout: Layout, content: bytes) -> None:
    (layout.control / "join.key").write_bytes(content)
    with pytest.raises(EmpError, match=r"join\.key: it is damaged"):
        tokens.issue("f", "m", expires_s=None)


def test_who_is_shut_out_is_so_until_there_is_a_line_for_it_again(tokens: JoinTokens) -> None:
    tokens.issue("f", "m", expires_s=None)
    assert tokens.shut_out() == frozenset()
    tokens.revoke("m")
    assert tokens.shut_out() == {"m"}
    tokens.issue("f", "m2", expires_s=None)
    assert tokens.shut_out() == {"m"}
    tokens.issue("f", "m", expires_s=None)
    assert tokens.shut_out() == frozenset()
