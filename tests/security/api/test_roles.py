"""Tokens of the API with roles: what each opens and what not, two values at once, how often; a page that only looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from emp_orch.api.routes import ROUTES
from emp_orch.api.views.route import Route
from emp_orch.monitor.proxy import PREFIXES, only_looks
from emp_orch.monitor.static_files import load
from emp_orch.roles import Role
from emp_orch.settings import Token
from emp_orch.web.callers import callers
from support.http.stack import Stack, eventually

ALL_POWER = "sesame-of-emps-own"
VALUES = {Role.READ: "sesame-to-look", Role.SUBMIT: "sesame-of-the-shop", Role.OPERATE: "sesame-of-who-works-here"}
BEFORE = "sesame-of-the-shop-last-year"
SELDOM = "sesame-of-the-hasty"
TOKENS = (
    Token(name="page", role=Role.READ, values=(VALUES[Role.READ],)),
    Token(name="shop", role=Role.SUBMIT, values=(VALUES[Role.SUBMIT], BEFORE)),
    Token(name="worker", role=Role.OPERATE, values=(VALUES[Role.OPERATE],)),
    # One in an hour more: none that this test waits for.
    Token(name="hasty", role=Role.SUBMIT, values=(SELDOM,), rate_count=3, rate_s=10_800.0),
)
OPEN = {"/health"}
REFUSED = "needs a token whose role is"


@pytest.fixture
async def stack(new_http_stack: Callable[..., Stack]) -> AsyncIterator[Stack]:
    made = new_http_stack(token=ALL_POWER, tokens=TOKENS)
    made.start_redis()
    made.start("api")
    await made.answers(f"{made.api}/health")

    async def ready() -> bool:
        return (await _asked(made.api, "GET", "/ready", ALL_POWER))[0] == 200

    await eventually(ready, "the API is ready")
    yield made
    said = made.daemons["api"].text
    assert not [v for v in (ALL_POWER, BEFORE, SELDOM, *VALUES.values()) if v in said], "a token is in the log"


async def _asked(
    base: str, method: str, path: str, token: str, *, websocket: bool = False
) -> tuple[int, str, dict[str, str]]:
    """Status, what the error says ('' without one), and headers. A stream is left where it begins."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if websocket:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    body: dict[str, Any] = {"json": {}} if method == "POST" else {}
    async with (
        aiohttp.ClientSession(base_url=base) as session,
        session.request(method, path, headers=headers, **body) as answer,
    ):
        kind, told = answer.content_type, ""
        if method != "HEAD" and answer.status >= 400 and kind == "application/json":
            told = json.loads(await answer.read())["error"]
        return answer.status, told, dict(answer.headers)


def _path(route: Route) -> str:
    names = {"{id}": "nobody", "{name}": "x.png", "{digest}": "0" * 64, "{component}": "api", "{run}": "1-x"}
    path = route.path
    for name, value in {**names, "{kind}": "missing", "{machine_id}": "m", "{subject}": "s", "{program}": "p"}.items():
        path = path.replace(name, value)
    return path


def test_every_route_names_who_may() -> None:
    """Who may do everything may do each thing; and what changes something is no matter of looking."""
    for route in ROUTES:
        assert Role.OPERATE in route.roles, route.path
        if route.method not in ("GET", "HEAD"):
            assert Role.READ not in route.roles, route.path
    for_shop = {(r.method, r.path) for r in ROUTES if Role.SUBMIT in r.roles and r.method not in ("GET", "HEAD")}
    assert for_shop == {
        ("POST", "/api/jobs"),
        ("POST", "/api/assets"),
        ("POST", "/api/jobs/{id}/cancel"),
        ("POST", "/api/jobs/{id}/retry"),
    }


async def test_each_role_gets_what_the_table_says_and_no_more(stack: Stack) -> None:
    wrong = []
    for route in ROUTES:
        websocket = route.kind == "websocket"
        for role, token in VALUES.items():
            status, told, headers = await _asked(stack.api, route.method, _path(route), token, websocket=websocket)
            assert status < 500, (route.path, status, told)
            opens = role in route.roles or route.path in OPEN
            # A box that joins or leaves shows a token of its own, at which the handler looks.
            join = route.path.endswith(("/join", "/leave"))
            if (status == 403 and (REFUSED in told or route.method == "HEAD")) is opens and not join:
                wrong.append((role, route.method, route.path, status, told))
            if not opens and not join:
                assert token not in f"{told}{headers}" and (f"is {role}" in told or route.method == "HEAD"), told
        status, told, _ = await _asked(stack.api, route.method, _path(route), "", websocket=websocket)
        assert status in ((200,) if route.path in OPEN else (401, 403)), (route.path, status, told)
    assert not wrong


async def test_the_document_says_whose_token_opens_what(stack: Stack) -> None:
    for token in VALUES.values():
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.get(f"{stack.api}/openapi.json", headers=headers) as got:
            paths = (await got.json())["paths"]
    for route in ROUTES:
        assert set(paths[route.path][route.method.lower()]["x-emp-roles"]) == set(route.roles)


async def test_two_values_of_one_token_are_let_in_at_once_and_no_third(stack: Stack) -> None:
    for token, status in ((VALUES[Role.SUBMIT], 200), (BEFORE, 200), (BEFORE[:-1], 401), (BEFORE + "r", 401)):
        assert (await _asked(stack.api, "GET", "/api/jobs", token))[0] == status
        assert (await _asked(stack.api, "GET", f"/api/jobs?token={token}", ""))[0] == status
    assert (await _asked(stack.api, "POST", "/api/machines/m/restart", BEFORE))[0] == 403


async def test_what_is_asked_too_often_waits_and_nobody_else_does(stack: Stack) -> None:
    seen = [await _asked(stack.api, "GET", "/api/jobs", SELDOM) for _ in range(4)]
    assert [status for status, _, _ in seen] == [200, 200, 200, 429]
    _, told, headers = seen[-1]
    assert "hasty" in told and SELDOM not in told and 0 < int(headers["Retry-After"]) <= 3_601
    # Refused before anything is looked at, also what its role does not open.
    assert (await _asked(stack.api, "POST", "/api/reconcile/pause", SELDOM))[0] == 429
    for token in (ALL_POWER, *VALUES.values()):
        assert [(await _asked(stack.api, "GET", "/api/jobs", token))[0] for _ in range(8)] == [200] * 8


async def test_a_message_of_a_socket_counts_as_a_request(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {SELDOM}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{stack.api}/ws/client/x", headers=headers) as ws,
    ):
        told = []
        for n in range(3):
            await ws.send_json({"type": "heartbeat", "request_id": str(n)})
            told.append(await ws.receive_json(timeout=20))
    assert [t["type"] for t in told] == ["heartbeat_ack", "heartbeat_ack", "error"]
    assert "used too often" in told[-1]["error"] and told[-1]["request_id"] == "2"


def test_the_page_that_only_looks_passes_on_what_the_role_read_may() -> None:
    for route in ROUTES:
        if route.path.startswith(PREFIXES):
            looks = only_looks(route.method, _path(route), websocket=route.kind == "websocket")
            ways_of_machines = route.tag == "work"
            assert looks is (Role.READ in route.roles) or ways_of_machines, route.path


@pytest.mark.parametrize("own", [True, False], ids=["a token of its own", "the token of who asks"])
async def test_a_page_that_only_looks(new_http_stack: Callable[..., Stack], own: bool) -> None:
    page = "sesame-of-the-page"
    stack = new_http_stack(token=ALL_POWER, tokens=TOKENS, monitor_token=page if own else None, monitor_role=Role.READ)
    stack.start_redis()
    stack.start("api")
    stack.start("monitor")
    await stack.answers(f"{stack.monitor}/health")
    token = page if own else ALL_POWER

    async def looks() -> bool:
        return (await _asked(stack.monitor, "GET", "/api/monitor/state", token))[0] == 200

    await eventually(looks, "the page shows the fleet")
    assert (await _asked(stack.monitor, "GET", "/ws/monitor/x", token, websocket=True))[0] == 101
    for method, path, websocket in (
        ("POST", "/api/machines/m/restart", False),
        ("POST", "/api/reconcile/pause", False),
        ("DELETE", "/api/machines/m", False),
        ("POST", "/api/jobs", False),
        ("POST", "/api/assets", False),
        ("POST", "/api/jobs/x/cancel", False),
        ("GET", "/ws/client/x", True),
    ):
        status, told, _ = await _asked(stack.monitor, method, path, token, websocket=websocket)
        assert status == 403 and "monitor.role" in told, (path, status, told)
    # Written so that only the API's side sees where it leads.
    reader_status = await _raw(stack.settings.monitor.port, "/ws/monitor/../client/x", token)
    assert reader_status in (403, 404), reader_status


async def _raw(port: int, path: str, token: str) -> int:
    """The status of a WebSocket's request whose path no client tidies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    writer.write("\r\n".join([*lines, f"Authorization: Bearer {token}", "", ""]).encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def test_the_page_is_told_that_it_only_looks() -> None:
    assert b'data-role="read"' in load(role=Role.READ)["/"].body
    assert b"data-role" not in load()["/"].body


@pytest.mark.parametrize("token", [t for t in TOKENS if t.role is not Role.OPERATE], ids=lambda t: t.name)
def test_no_value_shows_in_what_a_caller_prints(token: Token) -> None:
    assert token.values[0] not in repr(callers([token]))
