"""What emp sends a browser in forms of its own, read back by Chromium: names in headers, texts in event streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import content_disposition_filename, parse_content_disposition, web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emp_orch.api.feed.frames import Batch, Frame
from emp_orch.api.handlers.artifacts import _shown
from emp_orch.api.stream.sse import HEADERS
from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.outputs import safe_name
from emp_orch.store.fleet.events import Event
from support.host.terminal import HOSTILE
from support.http.browser import Watched

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEADY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\r\n",
        "a\n\ndata: b\n\n",
        "event: x\nid: 1",
        ":c",
        "\ufeff",
        "\u2028",
        "\x00",
        '"',
        "\\",
        "ü日本🙂",
    ),
    *(HOSTILE, "</script><script>1", "\x85", "retry: 1", "data", "null", "[]"),
)
NAMES = (
    *(
        "a.png",
        'q".png',
        "a;b=c.png",
        "a\r\nSet-Cookie: x=1.txt",
        "../../etc/passwd",
        "%2e%2e%2fx",
        "ü日本🙂.png",
        "a b.png",
    ),
    *("x'y''z.png", "\\\\host\\x", "con.txt", "-rf", "=cmd.csv", "a\x1b[2J.txt", "\u202egpj.exe", "a" * 300 + ".png"),
)


def disposed(name: str) -> str:
    return _shown(Output(name=name, content_type="application/octet-stream", size=1, sha256="0" * 64, path="p"))


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@settings(STEADY, max_examples=400)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
@example('q".png')
@example("a\r\nX: y")
async def test_a_parser_of_headers_reads_the_name(name: str) -> None:
    header = disposed(name)
    assert header.isascii() and header.isprintable()
    kind, parameters = parse_content_disposition(header)
    assert (kind, set(parameters)) == ("attachment", {"filename", "filename*"})
    assert content_disposition_filename(parameters) == safe_name(name)


async def test_a_browser_saves_under_the_name(watched: Watched) -> None:
    async def content(request: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Content-Disposition": disposed(NAMES[int(request.match_info["n"])])})

    async def index(_: web.Request) -> web.Response:
        links = "".join(f'<a id="n{n}" href="/get/{n}">{n}</a> ' for n in range(len(NAMES)))
        return web.Response(text=links, content_type="text/html")

    async with serving(web.get("/", index), web.get("/get/{n}", content)) as url:
        await watched.page.goto(url)
        for n, name in enumerate(NAMES):
            async with watched.page.expect_download() as caught:
                await watched.page.click(f"#n{n}")
            saved = (await caught.value).suggested_filename
            assert "/" not in saved and "\\" not in saved and saved.isprintable()
            assert saved == safe_name(name), ascii(name)


async def test_a_browser_reads_each_event_as_it_was_sent(watched: Watched) -> None:
    """Also names: one that would end a line is told as `malformed`."""
    sent = [Frame("whole", {"text": text, text: [text]}) for text in TEXTS]
    named = [Frame.of(Event(id=f"{n + 1}-0", type=text, data={"n": n})) for n, text in enumerate(TEXTS)]
    body = b"".join(Batch([*sent, *named, Frame("end", {})]).pieces(packed=False))

    async def stream(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=HEADERS)

    async def index(_: web.Request) -> web.Response:
        return web.Response(text="<p>", content_type="text/html")

    async with serving(web.get("/", index), web.get("/events", stream)) as url:
        await watched.page.goto(url)
        names = sorted({frame.event for frame in (*sent, *named)})
        async with asyncio.timeout(30):
            got = await watched.page.evaluate(
                """(names) => new Promise((done) => {
                    const source = new EventSource("/events"), got = [];
                    for (const name of new Set(["message", ...names])) {
                        source.addEventListener(name, (e) => got.push([e.type, e.lastEventId, e.data]));
                    }
                    source.addEventListener("end", () => { source.close(); done(got); });
                })""",
                names,
            )
    wholes = [json.loads(data) for kind, _, data in got if kind == "whole"]
    assert wholes == [{"text": text, text: [text]} for text in TEXTS]
    assert [(kind, id_, json.loads(data)) for kind, id_, data in got[len(sent) :]] == [
        (frame.event, frame.id, {"n": n}) for n, frame in enumerate(named)
    ]
