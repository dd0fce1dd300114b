"""Requests as no client sends them, to the API and to the page's server, which has no document: no method, path, query
or header makes one answer 5xx, or end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_orch.monitor.static_files import load
from support.http.stack import Stack

EXAMPLES = int(os.environ.get("EMP_FUZZ_API", "200"))
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW")
FILES = tuple(load())
ROUTES = ("/health", "/ready", "/openapi.json", "/api/jobs", "/api/", "/ws/", "/ws/monitor/x", "/js/../api/jobs")
ODD = ("..", ".", "", "%2e%2e", "%2f", "%00", "%ff", "%zz", "\u00fc", "js", "api", "ws", "a" * 300, ";", "*", "\\")
HEADERS = ("If-None-Match", "Range", "Accept-Encoding", "Cookie", "Origin", "Authorization", "Content-Type", "Expect")

# As bytes on the wire, and no line ends: those are a request of their own.
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=40)
paths = st.one_of(
    st.sampled_from(FILES),
    st.sampled_from(ROUTES),
    st.lists(st.one_of(st.sampled_from(ODD), words), max_size=5).map(lambda parts: "/" + "/".join(parts)),
    words,
)
requests = st.tuples(
    st.sampled_from(METHODS),
    st.builds(lambda path, query: f"{path}?{query}" if query else path, paths, words),
    st.dictionaries(st.sampled_from(HEADERS), words, max_size=3),
    st.binary(max_size=200),
)


@pytest.fixture
async def stack(new_http_stack: Callable[..., Stack]) -> AsyncIterator[Stack]:
    made = new_http_stack()
    await made.up()
    yield made
    said = [daemon.text for daemon in made.daemons.values()]
    assert not [text[text.find("Traceback") :][:3_000] for text in said if "Traceback" in text]


async def _status(port: int, method: str, target: str, headers: dict[str, str], body: bytes) -> int:
    """What is answered to a request as it stands, which no client tidies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
    async with asyncio.timeout(30):
        first = await reader.readline()
        while first.split()[1] == b"100":
            await reader.readuntil(b"\r\n")
            first = await reader.readline()
    writer.close()
    return int(first.split()[1])


def _listen(stack: Stack, server: str) -> int:
    return (stack.settings.api if server == "api" else stack.settings.monitor).port


@pytest.mark.parametrize("server", ["api", "monitor"])
async def test_nothing_that_is_asked_makes_a_server_fail(stack: Stack, server: str) -> None:
    asked: list[tuple[str, str, dict[str, str], bytes]] = []

    @settings(max_examples=EXAMPLES, database=None, derandomize=True)
    @given(requests)
    def collect(one: tuple[str, str, dict[str, str], bytes]) -> None:
        asked.append(one)

    await asyncio.to_thread(collect)
    statuses = set()
    for one in asked:
        status = await _status(_listen(stack, server), *one)
        assert 200 <= status < 500, (one, status)
        statuses.add(status)
    assert {404, 405} <= statuses
    assert await _status(_listen(stack, server), "GET", "/health", {}, b"") == 200


@pytest.mark.parametrize("server", ["api", "monitor"])
async def test_a_header_that_is_no_text_is_the_callers_fault(stack: Stack, server: str) -> None:
    """What is not UTF-8 cannot be sent back in an error's words."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    for headers, path, expected in (
        ({"Expect": "\xff"}, "/health", 200),
        ({"Expect": "100-continue"}, "/health", 200),
        ({"Content-Encoding": "\xff"}, "/health", 415),
        ({"Upgrade": "\xff"}, "/ws/monitor/x", 426),
        ({**upgrade, "Sec-WebSocket-Key": "\xff"}, "/ws/monitor/x", 400),
        ({"Cookie": "\xff=\xfe"}, "/health", 200),
        ({"If-None-Match": "\xff", "Range": "\xff"}, "/api/assets/" + "0" * 64, 404),
    ):
        got = await _status(_listen(stack, server), "GET", path, headers, b"")
        # The page's server passes an upgrade on only once it is one.
        assert got in ((expected, 400) if path.startswith("/ws/") else (expected,)), (headers, path, got)
