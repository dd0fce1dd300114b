"""`api.tokens` and `monitor.role` in emp.yaml: what they take, what is refused, what the plan says of a change."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from emp_orch.control.apply.proposal import read_proposal
from emp_orch.control.apply.token_text import token_lines
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import Fleet, SecretRef
from emp_orch.fleet.plan.changes import changed
from emp_orch.manifest import ConfigError, load_text
from emp_orch.roles import Role
from emp_orch.settings import Settings, Token

REST = """\
services: {s: {scale: per_machine, command: [s]}}
machines: {m: {num_gpus: 1, services: [s]}}
"""
SHOP = "api: {token: {env: ALL}, tokens: {shop: {token: {env: NEW}, previous: {env: OLD}, role: submit, rate: 10/m}}}\n"
VALUES = {"ALL": "value-of-all", "NEW": "value-that-is-new", "OLD": "value-of-before"}


def load(text: str) -> Fleet:
    return load_text(f"version: 1\nname: f\n{text}{REST}", file="emp.yaml", environ={})


def settings(folder: Path, text: str, environ: dict[str, str]) -> Settings:
    file = folder / "emp.yaml"
    file.write_text(f"version: 1\nname: f\n{text}{REST}")
    return read_proposal(file, environ)[1].settings


def test_a_token_with_its_role_its_value_before_and_its_rate() -> None:
    (token,) = load(SHOP).api.tokens
    assert (token.name, token.role, token.rate_count, token.rate_s) == ("shop", Role.SUBMIT, 10, 60.0)
    assert token.token == SecretRef(source="env", name="NEW") and token.previous == SecretRef(source="env", name="OLD")


def test_without_them_nothing_is_as_it_was_not() -> None:
    fleet = load("api: {token: {env: ALL}}\n")
    assert fleet.api.tokens == () and fleet.api.role is fleet.monitor.role is Role.OPERATE


def test_the_values_go_where_the_api_reads_them_and_no_reference_into_the_fleet(tmp_path: Path) -> None:
    found = settings(tmp_path, SHOP + "monitor: {role: read}\n", VALUES)
    shop = Token(
        name="shop", role=Role.SUBMIT, values=("value-that-is-new", "value-of-before"), rate_count=10, rate_s=60.0
    )
    assert found.api.tokens == (shop,) and found.api.token == "value-of-all"
    assert found.monitor.role is Role.READ


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "api: {tokens: {shop: {token: {env: A}, role: submit}}}\n",
            [
                "emp.yaml:3:7: api.tokens: they need api.token too: the token of emp's own processes and commands, "
                "which may do everything",
                "    api: {token: {env: EMP_TOKEN}, tokens: …}",
            ],
            id="nothing for emp itself",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {shop: {token: {env: A}, role: read}}}\n",
            [
                "emp.yaml:3:47: api.tokens.shop.token: this is the value of api.token, too",
                "    give each token a value of its own",
            ],
            id="that of all power",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: {env: B}, role: read}, "
            "b: {token: {env: C}, previous: {env: B}, role: read}}}\n",
            [
                "emp.yaml:3:98: api.tokens.b.previous: this is the value of api.tokens.a.token, too",
                "    give each token a value of its own",
            ],
            id="one reference twice",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: hunter2hunter2, role: read}}}\n",
            [
                "emp.yaml:3:44: api.tokens.a.token: expected {env: NAME} or {file: PATH}, found text",
                "    a secret never stands in this file: put it into the environment and write {env: NAME}",
            ],
            id="a value",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: {env: B}, previous: hunter2hunter2, role: read}}}\n",
            [
                "emp.yaml:3:64: api.tokens.a.previous: expected {env: NAME} or {file: PATH}, found text",
                "    a secret never stands in this file: put it into the environment and write {env: NAME}",
            ],
            id="a former value",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: {env: B}, role: admin}}}\n",
            ['emp.yaml:3:60: api.tokens.a.role: expected read, submit or operate, found "admin"'],
            id="no role",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: {env: B}}}}\n",
            ["emp.yaml:3:33: api.tokens.a.role: missing; expected read, submit or operate"],
            id="without a role",
        ),
        pytest.param(
            "api: {token: {env: A}, tokens: {a: {token: {env: B}, role: read, rate: 0/s}}}\n",
            [
                "emp.yaml:3:72: api.tokens.a.rate: expected a number of requests a second, minute or hour such as 10/s "
                'or 600/m, or nothing, found "0/s"'
            ],
            id="never",
        ),
        pytest.param(
            "monitor: {role: submit}\n",
            ['emp.yaml:3:17: monitor.role: expected read or operate, found "submit"'],
            id="a page that submits",
        ),
    ],
)
def test_what_is_refused_in_full(text: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "\n".join(p.text for p in caught.value.problems).split("\n") == told


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"NEW": ""}, "api.tokens.shop.token: the environment has no NEW"),
        ({"OLD": ""}, "api.tokens.shop.previous: the environment has no OLD"),
        ({"NEW": "\n"}, "api.tokens.shop.token: NEW is empty: everybody would be let in"),
        ({"OLD": "a b"}, "api.tokens.shop.previous: OLD holds a blank"),
        ({"NEW": "value-of-all"}, "api.token and api.tokens.shop.token have the same value"),
        ({"OLD": "value-of-all"}, "api.token and api.tokens.shop.previous have the same value"),
    ],
)
def test_values_that_let_in_who_should_not_be(tmp_path: Path, environ: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError) as refused:
        settings(tmp_path, SHOP, VALUES | environ)
    assert why in refused.value.message
    assert not any(v in str(refused.value) + refused.value.hint for v in VALUES.values())


def test_the_pages_token_is_none_of_the_apis(tmp_path: Path) -> None:
    """It lets in at the page, which may do everything."""
    with pytest.raises(UsageError, match=r"api\.tokens\.shop\.token and monitor\.token have the same value"):
        settings(tmp_path, SHOP + "monitor: {token: {env: PAGE}}\n", VALUES | {"PAGE": VALUES["NEW"]})
    settings(tmp_path, SHOP + "monitor: {token: {env: PAGE}}\n", VALUES | {"PAGE": VALUES["ALL"]})


def test_a_value_that_did_not_change_yet_is_no_twin(tmp_path: Path) -> None:
    (token,) = settings(tmp_path, SHOP, VALUES | {"OLD": VALUES["NEW"]}).api.tokens
    assert token.values == (VALUES["NEW"], VALUES["NEW"])


def test_the_plan_tells_a_change_of_tokens_and_no_value(tmp_path: Path) -> None:
    before = settings(tmp_path, SHOP, VALUES)
    (shop,) = before.api.tokens
    look = Token(name="look", role=Role.READ, values=("value-to-look",), rate_count=5, rate_s=1.0)

    def told(*tokens: Token, role: Role = Role.OPERATE, token: str | None = "value-of-all") -> list[str]:
        api = replace(before.api, tokens=tokens, token=token)
        return list(token_lines(before, replace(before, api=api, monitor=replace(before.monitor, role=role))))

    assert told(shop) == []
    assert told(shop, look) == ["+ api.tokens.look: read, 5/s"]
    assert told() == ["- api.tokens.shop: nobody is let in by it any more"]
    assert told(replace(shop, role=Role.READ, rate_count=0)) == [
        "~ api.tokens.shop: role submit → read, rate without limit"
    ]
    assert told(replace(shop, values=("value-of-next", VALUES["NEW"]))) == [
        "~ api.tokens.shop: a new value, 1 former value is let in no more"
    ]
    assert told(replace(shop, values=(VALUES["NEW"],))) == ["~ api.tokens.shop: 1 former value is let in no more"]
    assert told(shop, role=Role.READ, token="value-of-others") == [
        "~ api.token has another value",
        "~ monitor.role operate → read",
    ]
    assert told(shop, token=None) == ["- api.token: none is needed any more"]


def test_the_history_says_that_the_api_changed() -> None:
    assert changed(load("api: {token: {env: ALL}}\n"), load(SHOP)) == ("~ api",)
