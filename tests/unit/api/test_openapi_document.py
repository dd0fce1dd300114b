"""/openapi.json says of every route what all routes have in common, and each that is served stands in it."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from emp_orch.api.app import build_app, build_context
from emp_orch.api.routes import ROUTES
from emp_orch.api.views.openapi import document
from emp_orch.api.views.route import Kind, Opens, Route
from support.http.stack import Stack

SAID = document(ROUTES, token=True)
ERROR = {"$ref": "#/components/schemas/Error"}
ids = [f"{r.method} {r.path}" for r in ROUTES]


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = SAID["paths"][route.path][route.method.lower()]
    return found


async def test_what_is_served_stands_in_the_document_and_nothing_else(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "fleet")
    ctx = build_context(stack.settings, stack.layout, stack.client())
    served = {(r.method, r.resource.canonical) for r in build_app(ctx).router.routes() if r.resource is not None}
    await ctx.redis.aclose()
    assert served == {(m.upper(), path) for path, of in SAID["paths"].items() for m in of}


def test_no_two_operations_have_one_name() -> None:
    names = [_operation(route)["operationId"] for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("route", ROUTES, ids=ids)
def test_an_answer_is_said_with_its_form_and_headers(route: Route) -> None:
    answers = _operation(route)["responses"]
    assert "default" not in answers and {"403", "415"} <= set(answers)
    for status, answer in answers.items():
        assert answer["description"] == HTTPStatus(int(status)).phrase
        if int(status) >= 400:
            assert answer["content"]["application/json"]["schema"] == ERROR
        if status in ("429", "503"):
            assert answer["headers"]["Retry-After"]["required"]
    assert ("503" in answers) is route.redis
    assert ({"401", "429"} <= set(answers)) is (route.opens not in (Opens.ANYBODY, Opens.JOIN))
    if route.kind is Kind.BINARY:
        assert route.content and answers["200"]["headers"]["ETag"]


@pytest.mark.parametrize("token", [True, False], ids=["with a token", "without"])
def test_what_lets_a_caller_in_is_said_as_it_is(token: bool) -> None:
    paths = document(ROUTES, token=token)["paths"]
    for route in ROUTES:
        asks = paths[route.path][route.method.lower()]["security"]
        machines = route.opens in (Opens.MACHINE, Opens.JOIN)
        assert bool(asks) is (machines or (token and route.opens is not Opens.ANYBODY)), route.path
