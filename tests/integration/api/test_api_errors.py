"""Refusals: form, status, who may call, and what may not be reached."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from emp_orch.jobs.document.submission import MAX_JOB_BYTES
from emp_orch.store.redis.client import ANSWER_S
from support.http.stack import Producer, Stack, eventually, fleet_of, free_port


async def refused(response: aiohttp.ClientResponse, status: int, *words: str) -> None:
    body = await response.json()
    assert response.status == status, body
    assert set(body) == {"success", "error", "timestamp"}
    assert body["success"] is False
    for word in words:
        assert word in body["error"]
    assert "Traceback" not in body["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, ["/nothing"]),
        ("PUT", "/health", 405, ["PUT", "GET"]),
        ("GET", "/api/events?limit=many", 400, ["limit", "whole number"]),
        ("GET", "/api/events?limit=0", 400, ["limit"]),
        ("GET", "/api/events?after=x", 400, ["after"]),
        ("GET", "/api/jobs?status=odd", 400, ["status", "pending"]),
        ("GET", "/api/jobs?state=failed", 400, ["state", "status, service"]),
        ("GET", "/api/jobs/none", 404, ["none"]),
        ("GET", "/api/jobs/%00", 400, ["id"]),
        ("POST", "/api/machines/none/restart", 404, ["none"]),
        ("DELETE", "/api/machines/none", 404, ["none"]),
    ],
)
async def test_refusals_name_what_is_wrong(
    api: aiohttp.ClientSession, method: str, path: str, status: int, words: list[str]
) -> None:
    async with api.request(method, path) as response:
        await refused(response, status, *words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"reason": 3}', ["reason", "str"]),
        (b'{"because": "x"}', ["because"]),
        (b"{", ["not JSON"]),
        (b"[" * 100_000, ["body"]),
        (b'{"reason": "\xff"}', ["body"]),
    ],
)
async def test_a_bad_body_is_named(api: aiohttp.ClientSession, body: bytes, words: list[str]) -> None:
    async with api.post("/api/reconcile/pause", data=body) as response:
        await refused(response, 400, *words)


async def test_a_body_too_large_is_413(api: aiohttp.ClientSession) -> None:
    async with api.post("/api/jobs", data=io.BytesIO(b"x" * (MAX_JOB_BYTES + 1))) as response:
        await refused(response, 413, "larger")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3331", "127.0.0.1.evil.example", "", "[", "0.0.0.0"])
@pytest.mark.parametrize("of", ["api", "monitor"])
async def test_a_foreign_host_is_refused(http_stack: Stack, host: str, of: str) -> None:
    url = getattr(http_stack, of) + "/api/monitor/state"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": host}) as response:
        await refused(response, 403, "Host")


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:80"])
async def test_this_machines_names_are_accepted(api: aiohttp.ClientSession, host: str) -> None:
    async with api.get("/version", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil.example"]
)
@pytest.mark.parametrize("of", ["api", "monitor"])
async def test_a_cross_origin_write_is_refused(http_stack: Stack, origin: str, of: str) -> None:
    url = getattr(http_stack, of)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/api/reconcile/pause", headers={"Origin": origin}) as response:
            await refused(response, 403, "Origin")
        with pytest.raises(aiohttp.WSServerHandshakeError) as e:
            await session.ws_connect(f"{url}/ws/monitor/x", headers={"Origin": origin})
        assert e.value.status == 403


async def test_own_and_monitors_origin_may_write(http_stack: Stack) -> None:
    async with aiohttp.ClientSession() as session:
        for url, origin in (
            (http_stack.api, http_stack.api),
            (http_stack.api, http_stack.monitor),
            (http_stack.monitor, http_stack.monitor),
        ):
            async with session.post(f"{url}/api/reconcile/resume", headers={"Origin": origin}) as response:
                assert response.status == 200


@pytest.mark.parametrize(
    "component",
    ["..%2f..%2fsecret", "%2e%2e%2fsecret", "..", "api.log", "a%00b", "a/b", "link", "é", "api%0a"],
)
async def test_a_log_path_does_not_leave_its_folder(
    api: aiohttp.ClientSession, http_stack: Stack, component: str
) -> None:
    secret = http_stack.layout.root / "secret.log"
    secret.write_text("SECRET\n")
    (http_stack.layout.logs / "link.log").symlink_to(secret)
    async with aiohttp.ClientSession() as session:
        from yarl import URL

        url = URL(f"{http_stack.api}/api/logs/{component}", encoded=True)
        async with session.get(url) as response:
            assert response.status in (400, 404)
            assert "SECRET" not in await response.text()


async def test_the_end_of_a_log(api: aiohttp.ClientSession, http_stack: Stack) -> None:
    (http_stack.layout.logs / "machine-m1.log").write_text("".join(f"line {i}\n" for i in range(1000)))
    async with api.get("/api/logs/machine-m1?lines=2") as response:
        data = (await response.json())["data"]
    assert data == {"component": "machine-m1", "lines": ["line 998", "line 999"], "whole": False}
    async with api.get("/api/logs/nobody") as response:
        await refused(response, 404, "nobody", "machine-m1")


async def test_a_token_is_asked_for(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack(token="s3cret-token")
    stack.start_redis()
    stack.start("api")
    stack.start("monitor")
    await stack.answers(f"{stack.api}/health")
    await stack.answers(f"{stack.monitor}/health")
    async with aiohttp.ClientSession() as session:
        for url in (stack.api, stack.monitor):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret-token"}):
                async with session.get(f"{url}/api/monitor/state", headers=headers) as response:
                    await refused(response, 401, "token")
            async with session.get(f"{url}/version", headers={"Authorization": "Bearer s3cret-token"}) as response:
                assert response.status == 200
            async with session.get(f"{url}/version?token=s3cret-token") as response:
                assert response.status == 200
    assert "s3cret-token" not in stack.daemons["api"].text + stack.daemons["monitor"].text


async def test_the_monitors_own_token_guards_an_open_api(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack(monitor_token="page-token")
    await_up = stack
    await_up.start_redis()
    stack.start("api")
    stack.start("monitor")
    await stack.answers(f"{stack.api}/ready")
    await stack.answers(f"{stack.monitor}/health")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{stack.monitor}/api/monitor/state") as response:
            await refused(response, 401, "token")
        async with session.get(f"{stack.monitor}/") as response:
            assert response.status == 200
        async with session.get(f"{stack.monitor}/version", headers={"Authorization": "Bearer page-token"}) as response:
            assert response.status == 200


def daemon(root: Path, name: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(root), name]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_beyond_loopback_it_refuses_to_start_without_a_token(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack(host="0.0.0.0")
    done = daemon(stack.layout.root, "api")
    assert done.returncode == 2
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["api", "monitor"])
async def test_a_taken_port_is_one_clear_error(http_stack: Stack, name: str) -> None:
    done = daemon(http_stack.layout.root, name)
    assert done.returncode == 1
    assert "the port is taken" in done.stderr
    assert str(getattr(http_stack.settings, name).port) in done.stderr
    assert "Traceback" not in done.stderr


def test_without_settings_it_says_what_to_do(tmp_path: Path) -> None:
    done = daemon(tmp_path, "api")
    assert done.returncode == 2
    assert "emp apply" in done.stderr


async def test_redis_away_is_503_and_health_says_so(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack()
    stack.start("api")
    await stack.answers(f"{stack.api}/health")
    async with aiohttp.ClientSession(base_url=stack.api) as session:
        async with session.get("/health") as response:
            assert (await response.json())["redis"] is False
        for path in ("/ready", "/api/monitor/state", "/api/jobs", "/api/drift"):
            async with session.get(path) as response:
                await refused(response, 503, "Redis")
    stack.start_redis()
    await stack.answers(f"{stack.api}/ready")


async def test_a_frozen_redis_is_503_and_leaves_nobody_waiting(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack()
    await stack.up()
    assert stack.redis is not None
    redis = stack.redis.popen
    paths = ("/api/monitor/state", "/api/jobs", "/api/jobs/x", "/api/jobs/x/progress", "/api/jobs/x/artifacts/y")

    async def asked(session: aiohttp.ClientSession, method: str, path: str) -> None:
        body = {"service": "comfyui"} if method == "POST" else None
        async with session.request(method, path, json=body) as response:
            await refused(response, 503, "Redis")

    redis.send_signal(signal.SIGSTOP)
    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S + 10)
        async with aiohttp.ClientSession(base_url=stack.api, timeout=timeout) as session:
            await asyncio.gather(asked(session, "POST", "/api/jobs"), *(asked(session, "GET", path) for path in paths))
    finally:
        redis.send_signal(signal.SIGCONT)
    await stack.answers(f"{stack.api}/ready")


async def test_sigterm_ends_open_streams_promptly(http_stack: Stack) -> None:
    async with AsyncExitStack() as opened:
        session = await opened.enter_async_context(aiohttp.ClientSession())
        for url in (http_stack.api, http_stack.monitor):
            response = await opened.enter_async_context(session.get(f"{url}/api/events/monitor"))
            assert await response.content.readline()
        await opened.enter_async_context(session.ws_connect(f"{http_stack.monitor}/ws/monitor/x"))
        for name in ("monitor", "api"):
            began = time.monotonic()
            assert await asyncio.to_thread(http_stack.stop, name) == 0
            assert time.monotonic() - began < 3


async def test_requests_are_answered_by_the_reconcilers_word(api: aiohttp.ClientSession, producer: Producer) -> None:
    from emp_orch.store.fleet.requests import Once, Verb, answer, pending

    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")

    async def reconciler(error: str) -> None:
        asked = partial(pending, producer.redis, producer.keys, "basic", producer.seal, Once().fits)
        found = await eventually(asked, "a request")
        ((request_id, request),) = found
        assert request is not None
        assert request.verb is Verb.RESTART_PROGRAM
        assert (request.machine_id, request.program) == ("m1", "comfyui-gpu0")
        await answer(producer.redis, producer.keys, "basic", request_id, error=error)

    path = "/api/machines/m1/programs/comfyui-gpu0/restart"
    for error, status in (("", 200), ("breaker is open", 409)):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reconciler(error))
            async with api.post(path) as response:
                body = await response.json()
                assert response.status == status, body
                assert error in body.get("error", "")
    async with api.post("/api/machines/m1/restart?wait=0") as response:
        assert response.status == 202
        assert (await response.json())["request_id"]
    async with api.post("/api/machines/m1/programs/other/restart") as response:
        await refused(response, 404, "other", "comfyui-gpu0")
    async with api.delete("/api/machines/m1") as response:
        await refused(response, 409, "offline")


def test_a_free_port_is_free() -> None:
    assert free_port() > 1024
