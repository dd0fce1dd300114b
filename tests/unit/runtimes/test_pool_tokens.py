"""Tokens of pools and of their members: what each opens, what makes it void, and what nothing opens."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from emp_orch.layout import Layout
from emp_orch.runtimes.keys.join_tokens import JoinTokens, OfMember, OfPool

NOW_S = 1_000_000.0
LATER_S = int(NOW_S) + 60
BORN_MS = 1_700_000_000_000


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    return layout


@pytest.fixture
def tokens(layout: Layout) -> JoinTokens:
    return JoinTokens(layout)


def pool_of(tokens: JoinTokens, token: str, *, fleet: str = "f", now_s: float = NOW_S) -> OfPool | None:
    return tokens.pool_of(token, fleet, now_s=now_s)


def test_a_pools_token_opens_its_pool_until_it_expires(tokens: JoinTokens) -> None:
    token = tokens.pool_token("f", "renders", expires_s=LATER_S)
    assert pool_of(tokens, token) == OfPool(pool="renders")
    assert pool_of(tokens, token, now_s=LATER_S) is None
    assert pool_of(tokens, token, fleet="g") is None


def test_it_says_for_whom_and_for_how_many(tokens: JoinTokens) -> None:
    one = tokens.pool_token("f", "renders", expires_s=None, member_id="renders-7f3k")
    few = tokens.pool_token("f", "renders", expires_s=None, most=3)
    assert pool_of(tokens, one, now_s=NOW_S * 1_000) == OfPool(pool="renders", member_id="renders-7f3k")
    assert pool_of(tokens, few) == OfPool(pool="renders", most=3)


def test_each_kind_opens_its_own_and_no_other(tokens: JoinTokens) -> None:
    """A machine, a pool and a member of the same name have nothing of each other."""
    machine = tokens.issue("f", "x", expires_s=None)
    pool = tokens.pool_token("f", "x", expires_s=None, member_id="x")
    member = tokens.member_token("f", "x", "x", born_ms=0)
    found = [
        (tokens.holder(t, "f", now_s=NOW_S), pool_of(tokens, t), tokens.member_of(t, "f", now_s=NOW_S))
        for t in (machine, pool, member)
    ]
    assert found == [
        ("x", None, None),
        (None, OfPool(pool="x", member_id="x"), None),
        (None, None, OfMember(pool="x", member_id="x", born_ms=0)),
    ]
    assert [tokens.opens(t, "f", "x", now_s=NOW_S) for t in (machine, pool, member)] == [True, False, False]


def test_what_was_revoked_opens_no_more_and_what_comes_after_does(tokens: JoinTokens) -> None:
    old, beside = tokens.pool_token("f", "a", expires_s=None), tokens.pool_token("f", "b", expires_s=None)
    member, machine = tokens.member_token("f", "a", "a-1", born_ms=BORN_MS), tokens.issue("f", "a", expires_s=None)
    tokens.revoke_pool("a")
    assert pool_of(tokens, old) is None
    assert pool_of(tokens, beside) == OfPool(pool="b")
    assert pool_of(tokens, tokens.pool_token("f", "a", expires_s=None)) == OfPool(pool="a")
    assert tokens.opens(machine, "f", "a", now_s=NOW_S)
    assert tokens.member_of(member, "f", now_s=NOW_S) == OfMember(pool="a", member_id="a-1", born_ms=BORN_MS)
    assert tokens.shut_out() == frozenset()


def test_a_member_is_told_from_a_former_one_of_its_id(tokens: JoinTokens) -> None:
    token = tokens.member_token("f", "a", "a-1", born_ms=BORN_MS)
    assert tokens.member_of(token, "f", now_s=NOW_S * 1_000) == OfMember(pool="a", member_id="a-1", born_ms=BORN_MS)
    assert tokens.member_of(token, "g", now_s=NOW_S) is None
    words = {
        tokens.member_password("f", "a-1", BORN_MS),
        tokens.member_password("f", "a-1", BORN_MS + 1),
        tokens.member_password("f", "a-2", BORN_MS),
        tokens.member_password("g", "a-1", BORN_MS),
        tokens.password("f", "a-1"),
    }
    assert len(words) == 5
    assert tokens.member_password("f", "a-1", BORN_MS) in words


def test_nothing_is_kept_of_members(tokens: JoinTokens, layout: Layout) -> None:
    tokens.pool_token("f", "a", expires_s=None)
    before = (layout.control / "join.key").read_bytes()
    for i in range(20):
        tokens.member_token("f", "a", f"a-{i}", born_ms=BORN_MS + i)
        tokens.member_password("f", f"a-{i}", BORN_MS + i)
        tokens.pool_token("f", "a", expires_s=None, member_id=f"a-{i}")
    assert (layout.control / "join.key").read_bytes() == before


@pytest.mark.parametrize(
    "changed", [{"pool": "b"}, {"machine": ""}, {"most": 0}, {"kind": "member"}, {"kind": ""}, {"era": 1}]
)
def test_what_was_changed_opens_nothing(tokens: JoinTokens, changed: dict[str, object]) -> None:
    version, payload, mac = tokens.pool_token("f", "a", expires_s=None, member_id="a-1", most=2).split(".")
    said = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    other = base64.urlsafe_b64encode(msgspec.json.encode({**said, **changed})).decode().rstrip("=")
    token = f"{version}.{other}.{mac}"
    assert pool_of(tokens, token) is None
    assert tokens.member_of(token, "f", now_s=NOW_S) is None
    assert tokens.holder(token, "f", now_s=NOW_S) is None


@pytest.mark.parametrize("token", ["", ".", "emp1", "emp1..", "\udcff.x.y", "a" * 2_000])
def test_what_is_no_token_opens_nothing(tokens: JoinTokens, token: str) -> None:
    tokens.pool_token("f", "a", expires_s=None)
    assert pool_of(tokens, token) is None
    assert tokens.member_of(token, "f", now_s=NOW_S) is None


def test_a_token_of_the_longest_names_is_read(tokens: JoinTokens) -> None:
    pool, member = "p" * 63, f"{'p' * 63}-{'x' * 8}"
    fleet = "f" * 63
    token = tokens.pool_token(fleet, pool, expires_s=LATER_S, member_id=member, most=100_000)
    assert pool_of(tokens, token, fleet=fleet) == OfPool(pool=pool, member_id=member, most=100_000)


def test_a_machines_token_is_as_an_older_emp_made_it(tokens: JoinTokens) -> None:
    payload = tokens.issue("f", "m", expires_s=None).split(".")[1]
    said = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert said == {"fleet": "f", "machine": "m", "era": 0, "expires_s": None}
