"""What a worker without the store does when the way to the API breaks: it goes on where it was, or sends again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from emp_orch.jobs.document.model import InputSource
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.input_sources import NotGiven
from emp_orch.store.artifacts.run import MAX_OUTPUT_BYTES
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotStore
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.web.serve import listening
from emp_orch.worker.files.api_client import ApiClient
from emp_orch.worker.files.remote_artifacts import RemoteArtifacts, RemoteInputs
from support.http.outputs import chunks_of
from support.http.run_files import Lab, running_lab
from support.http.stack import Stack, free_port

LARGE = secrets.token_bytes(5 * 1024**2)


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack]) -> AsyncIterator[Lab]:
    async with running_lab(new_http_stack) as lab:
        yield lab


@asynccontextmanager
async def cut_after(port: int, *lengths: int) -> AsyncIterator[str]:
    """The URL of a way to `port` whose connections break after so many bytes, one after the other; the rest stand."""
    left = list(lengths)

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: float) -> None:
        while most > 0 and (data := await source.read(65_536)):
            sink.write(data)
            await sink.drain()
            most -= len(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = left.pop(0) if left else float("inf")
        far, there = await asyncio.open_connection("127.0.0.1", port)
        ways = {asyncio.create_task(pass_on(reader, there, most)), asyncio.create_task(pass_on(far, writer, most))}
        with suppress(ConnectionError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, there):
            end.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert left == [], "every connection that was to break came"


@asynccontextmanager
async def client(folder: Path, url: str, token: str) -> AsyncIterator[ApiClient]:
    access = folder / "api.json"
    access.write_text(json.dumps({"url": url, "token": token}))
    made = ApiClient(access)
    yield made
    await made.aclose()


async def test_an_upload_that_breaks_is_sent_again(lab: Lab, tmp_path: Path) -> None:
    _, claim = await lab.claimed("mine")
    async with (
        cut_after(lab.stack.settings.api.port, 100_000, 3_000_000) as url,
        client(tmp_path, url, lab.token("mine")) as api,
    ):
        run = RemoteArtifacts(api, tmp_path).run(claim.job.id, claim.run)
        first = await run.save("../a b.png", "text/plain; charset=utf-8", chunks_of(LARGE))
        second = await run.save("../a b.png", "image/png", chunks_of(b""))
    assert (first.name, first.size, first.sha256) == ("_a b.png", len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert (first.content_type, second.name, second.size) == ("text/plain; charset=utf-8", "_a b-2.png", 0)
    stored = lab.stack.layout.artifacts / claim.job.id / claim.run
    assert (stored / "_a b.png").read_bytes() == LARGE
    assert sorted(p.name for p in stored.iterdir()) == ["_a b-2.png", "_a b.png"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["api.json"]


async def test_an_input_that_breaks_off_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    assets = Assets(Artifacts(lab.stack.settings.artifacts), lab.redis, lab.keys)
    asset = (await assets.save("large", chunks_of(LARGE), most=2 * len(LARGE))).asset
    empty = (await assets.save("empty", chunks_of(b""), most=1)).asset
    inputs = {"set/large": InputSource(asset=asset), "empty": InputSource(asset=empty)}
    await lab.queue.submit(msgspec.structs.replace(parse_submission({"service": "simulation"}), inputs=inputs))
    claims = Claims(lab.redis, lab.keys, "mine-worker-0", lease_s=30)
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    await claims.aclose()
    assert isinstance(claim, Claimed)
    async with (
        cut_after(lab.stack.settings.api.port, 1_000_000, 70_000) as url,
        client(tmp_path, url, lab.token("mine")) as api,
    ):
        found = RemoteInputs(api)
        content = await found.find("set/large", inputs["set/large"], claim.job, claim.run)
        assert (content.size, content.sha256) == (len(LARGE), asset.removeprefix("sha256:"))
        for _ in range(2):  # as often as it is asked for
            assert b"".join([chunk async for chunk in content.whole()]) == LARGE
        nothing = await found.find("empty", inputs["empty"], claim.job, claim.run)
        assert (nothing.size, [chunk async for chunk in nothing.whole()]) == (0, [])
        with pytest.raises(NotGiven, match="no worker of mine holds run 9-x of job"):
            await found.find("empty", inputs["empty"], claim.job, "9-x")


async def test_what_is_refused_is_told_in_the_apis_words(lab: Lab, tmp_path: Path) -> None:
    _, claim = await lab.claimed("mine")
    async with client(tmp_path, lab.stack.api, lab.token("mine")) as api:
        store = RemoteArtifacts(api, tmp_path)
        await store.check()
        with pytest.raises(CannotStore, match="the API says: no worker of mine holds run") as lost:
            await store.run(claim.job.id, "2-other").save("a", "", chunks_of(b"x"))
        assert lost.value.retryable
        lab.stack.layout.artifacts.rmdir()
        lab.stack.layout.artifacts.write_text("no folder")
        for ask in (store.check, partial(store.run(claim.job.id, claim.run).save, "a", "", chunks_of(b"x"))):
            with pytest.raises(CannotStore) as full:
                await ask()
            assert str(lab.stack.layout.root) not in full.value.message
            assert "api://" in full.value.message and full.value.retryable
    async with client(tmp_path, lab.stack.api, "nobody's") as api:
        with pytest.raises(CannotStore, match="the token is wrong"):
            await RemoteArtifacts(api, tmp_path).check()


async def test_a_token_is_for_the_api_alone(lab: Lab, tmp_path: Path) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"{lab.stack.api}{request.path}")

    app, port = web.Application(), free_port()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    async with (
        listening(app, what="the test", host="127.0.0.1", port=port),
        client(tmp_path, f"http://127.0.0.1:{port}", lab.token("mine")) as api,
    ):
        with pytest.raises(CannotStore, match="it answered 307"):
            await RemoteArtifacts(api, tmp_path).check()
    assert asked == ["/api/work"]


async def test_an_output_that_is_too_large_never_leaves_the_machine(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        part = bytes(64 * 1024**2)
        for _ in range(MAX_OUTPUT_BYTES // len(part) + 1):
            yield part

    async with client(tmp_path, "http://127.0.0.1:1", "t") as api:
        with pytest.raises(CannotStore, match="the most one output may have") as e:
            await RemoteArtifacts(api, tmp_path).run("j", "1-x").save("a", "", endless())
    assert not e.value.retryable
