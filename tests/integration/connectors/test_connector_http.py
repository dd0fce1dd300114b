"""The http connector against REST services of the usual kinds: synchronous, and polled by an id."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from emp_orch.connectors import base
from emp_orch.connectors.base import Recovers, RunFailed, StillRuns
from emp_orch.connectors.http import connector as http_module
from emp_orch.connectors.http.connector import Http
from emp_orch.fleet.model.observed import ConnectorStatus
from emp_orch.jobs.document.model import JobError, Result
from emp_orch.options.base import CannotLoad
from support.redis.server import free_port
from support.worker.connector import Stage, job_of, serving

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200_000)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "artifacts", job_of({"prompt": "a cat", "n": 2}))


async def outcome(connector: Http, stage: Stage) -> Result | JobError:
    try:
        return await connector.run(stage.run())
    except RunFailed as e:
        return e.error
    finally:
        await connector.close()


async def sync_outcome(stage: Stage, handler: Handler, **options: Any) -> Result | JobError:
    app = web.Application()
    app.router.add_route("*", "/run", handler)
    async with serving(app) as url:
        return await outcome(Http(url, {"path": "/run", **options}), stage)


def answering(*args: Any, **kwargs: Any) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(*args, **kwargs)

    return handler


def saying(value: Any, status: int = 200, **kwargs: Any) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(value, status=status, **kwargs)

    return handler


# hostile answers


@pytest.mark.parametrize("target", ["http://[::1", "http://x:99999999/", "//[", "http://169.254.169.254/a"])
async def test_a_redirect_to_nowhere_or_elsewhere_is_a_plain_failure(stage: Stage, target: str) -> None:
    handler = answering(status=307, headers={"Location": target})
    error = await sync_outcome(stage, handler)
    assert isinstance(error, JobError) and "which is not on http://127.0.0.1" in error.message


@pytest.mark.parametrize("progress", ["9" * 400, "-" + "9" * 400, "1e300", '"x"', "null", "[]", "true"])
async def test_progress_may_be_any_value(stage: Stage, progress: str) -> None:
    looks = 0

    async def status(_: web.Request) -> web.Response:
        nonlocal looks
        looks += 1
        word = "done" if looks > 1 else "runs"
        text = f'{{"status": "{word}", "progress": {progress}}}'
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post("/run", saying({"id": "r"}))
    app.router.add_get("/run/r", status)
    options = {
        "path": "/run",
        "mode": "poll",
        "id_field": "id",
        "status_path": "/run/{id}",
        "status_field": "status",
        "done": ["done"],
        "progress_field": "progress",
        "interval_s": 0.01,
    }
    async with serving(app) as url:
        found = await outcome(Http(url, options), stage)
    assert isinstance(found, Result)
    assert all(0 <= told.fraction <= 1 for told in stage.told)


@pytest.mark.parametrize("status", [200, 401])
async def test_a_secret_that_the_service_says_back_goes_no_further(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("SERVICE_KEY", "Bearer sk-1234567890abcdef")

    async def handler(request: web.Request) -> web.Response:
        key = request.headers["Authorization"]
        assert key == "Bearer sk-1234567890abcdef"
        said = {"success": False, "error": f"bad key {key.split()[1]}", "seen": dict(request.headers)}
        return web.json_response(said, status=status)

    error = await sync_outcome(stage, handler, headers={"Authorization": {"env": "SERVICE_KEY"}})
    assert isinstance(error, JobError) and "bad key ***" in error.message
    assert "1234567890" not in repr(error)


# sync


async def test_the_payload_goes_out_and_the_answer_comes_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(body=await request.json(), key=request.headers["X-Key"], method=request.method)
        return web.json_response({"data": {"caption": "a cat"}})

    monkeypatch.setenv("SERVICE_KEY", "s3cret")
    headers = {"X-Key": {"env": "SERVICE_KEY"}}
    body = {"input": "$payload", "first": ["$payload.prompt"], "id": "$job_id", "quality": "$5"}
    found = await sync_outcome(stage, handler, method="PUT", headers=headers, body=body, result_field="data")
    assert found == Result(detail={"caption": "a cat"})
    assert seen == {
        "body": {"input": {"prompt": "a cat", "n": 2}, "first": ["a cat"], "id": "job-1", "quality": "$5"},
        "key": "s3cret",
        "method": "PUT",
    }


async def test_a_binary_answer_is_an_output(stage: Stage) -> None:
    found = await sync_outcome(stage, answering(body=PNG, content_type="image/png"))
    assert isinstance(found, Result)
    (output,) = found.outputs
    assert (output.name, output.content_type, output.size) == ("run.png", "image/png", len(PNG))
    assert stage.saved(output) == PNG


async def test_a_name_from_the_service_stays_in_the_runs_folder(stage: Stage) -> None:
    headers = {"Content-Disposition": 'attachment; filename="../../evil.bin"'}
    found = await sync_outcome(stage, answering(body=b"x", headers=headers))
    assert isinstance(found, Result)
    (output,) = found.outputs
    assert "/" not in output.name and stage.saved(output) == b"x"
    assert [p for p in stage.folder.rglob("*") if p.is_file()] == [stage.folder / "job-1" / output.path]


async def test_an_empty_answer_is_a_result(stage: Stage) -> None:
    assert await sync_outcome(stage, answering(status=204)) == Result()


async def test_a_large_json_answer_becomes_an_output(stage: Stage) -> None:
    found = await sync_outcome(stage, saying({"words": "x" * 100_000}))
    assert isinstance(found, Result) and found.detail == {}
    (output,) = found.outputs
    assert output.content_type == "application/json" and output.size > 100_000


async def test_links_to_outputs_are_fetched_from_the_service_itself(stage: Stage) -> None:
    app = web.Application()
    app.router.add_post("/run", saying({"files": ["/files/a.png", {"url": "files/b.txt"}]}))
    app.router.add_get("/files/a.png", answering(body=PNG, content_type="image/png"))
    app.router.add_get("/files/b.txt", answering(text="hello"))
    async with serving(app) as url:
        found = await outcome(Http(url, {"path": "/run", "outputs_field": "files", "result_field": "none"}), stage)
    assert isinstance(found, Result) and found.detail == {}
    assert [(o.name, o.content_type) for o in found.outputs] == [
        ("a.png", "image/png"),
        ("b.txt", "text/plain; charset=utf-8"),
    ]
    assert [stage.saved(o) for o in found.outputs] == [PNG, b"hello"]


@pytest.mark.parametrize(
    ("handler", "options", "words", "retryable"),
    [
        (saying({"error": {"message": "no such style"}}, 422), {}, "422: no such style", False),
        (saying({"detail": [{"msg": "bad n"}]}, 400), {}, '400: [{"msg":"bad n"}]', False),
        (saying({"why": {"text": "too dark"}}, 400), {"error_field": "/why/text"}, "400: too dark", False),
        (answering(status=404, text="nothing here"), {}, "404: nothing here", False),
        (answering(status=401), {}, "answered 401", False),
        (answering(status=408), {}, "answered 408", True),
        (answering(status=429, text="busy"), {}, "429: busy", True),
        (answering(status=500, text="<h1>oops</h1>"), {}, "500: <h1>oops</h1>", True),
        (saying({"message": "warming up"}, 503), {}, "503: warming up", True),
        (saying({"success": False, "error": "out of paint"}), {}, "out of paint", False),
        (saying({"success": False}), {}, "success: false", False),
        (answering(text="{", content_type="application/json"), {}, "not JSON", False),
        (
            saying({"state": "ERR", "error": "bad"}),
            {"status_field": "state", "done": ["ok"], "failed": ["err"]},
            "bad",
            0,
        ),
        (saying({"state": "?"}), {"status_field": "state", "done": ["ok"]}, "'?', which is none of done", False),
        (saying({}), {"status_field": "state", "done": ["ok"]}, "no status at state", False),
        (saying({"files": ["http://192.0.2.1/x"]}), {"outputs_field": "files"}, "not on http://127.0.0.1", False),
        (saying({"files": ["file:///etc/passwd"]}), {"outputs_field": "files"}, "not on http://127.0.0.1", False),
        (saying({"files": [3]}), {"outputs_field": "files"}, "files holds int, not links", False),
        (saying({"files": ["/gone"]}), {"outputs_field": "files"}, "answered 404 for it", True),
        (answering(status=302, headers={"Location": "http://192.0.2.1/"}), {}, "not on http://127.0.0.1", False),
        (answering(status=307, headers={"Location": "/run"}), {}, "redirects without end", False),
        (saying({}), {"body": {"x": "$payload.missing"}}, "the payload lacks 'missing'", False),
    ],
)
async def test_what_is_no_success_fails_in_the_services_words(
    stage: Stage, handler: Handler, options: dict[str, Any], words: str, retryable: bool
) -> None:
    found = await sync_outcome(stage, handler, **options)
    assert isinstance(found, JobError) and words in found.message and found.retryable == bool(retryable)


async def test_nobody_there_is_worth_another_try(stage: Stage) -> None:
    found = await outcome(Http(f"http://user:pw@127.0.0.1:{free_port()}", {"path": "/run"}), stage)
    assert isinstance(found, JobError) and found.retryable and "does not answer" in found.message
    assert "pw" not in found.message


async def test_an_answer_that_takes_too_long_is_worth_another_try(stage: Stage) -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    found = await sync_outcome(stage, handler, timeout_s=0.1)
    assert isinstance(found, JobError) and found.retryable


async def test_a_redirect_on_the_same_host_is_followed(stage: Stage) -> None:
    app = web.Application()
    app.router.add_post("/run", answering(status=303, headers={"Location": "/result"}))
    app.router.add_get("/result", saying({"a": 1}))
    async with serving(app) as url:
        assert await outcome(Http(url, {"path": "/run"}), stage) == Result(detail={"a": 1})


@pytest.mark.parametrize("when", [lambda: "0", lambda: formatdate(time.time() - 5, usegmt=True)])
async def test_a_full_service_is_asked_again_when_it_says(
    stage: Stage, when: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "AGAIN_S", 0.01)
    asked = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return (
            web.Response(status=429, headers={"Retry-After": when()}) if asked < 3 else web.json_response({"n": asked})
        )

    assert await sync_outcome(stage, handler) == Result(detail={"n": 3})


async def test_a_service_that_is_full_for_long_gives_the_job_back(stage: Stage) -> None:
    found = await sync_outcome(stage, answering(status=503, headers={"Retry-After": "3600"}))
    assert isinstance(found, JobError) and found.retryable


async def test_cancel_cuts_a_synchronous_request_off(stage: Stage) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        begun.set()
        try:
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.01)
        except ConnectionError:
            closed.set()
            raise

    app = web.Application()
    app.router.add_post("/run", handler)
    async with serving(app) as url, asyncio.timeout(10):
        connector = Http(url, {"path": "/run"})
        running = asyncio.create_task(outcome(connector, stage))
        await begun.wait()
        await connector.cancel()
        found = await running
        assert isinstance(found, JobError) and "stopped" in found.message
        await closed.wait()


# poll


class Polled:
    """A service that takes jobs and is asked about them.

    `script`: what it says of a job, look by look: JSON, or a status with headers. The last is said for ever.
    """

    def __init__(self, *script: dict[str, Any] | tuple[int, dict[str, str]]) -> None:
        self.script = list(script)
        self.cancelled: list[str] = []
        self.submitted: list[Any] = []
        self.looks = 0
        self.looked = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_post("/jobs", self._submit)
        self.app.router.add_get("/jobs/{id}/status", self._status)
        self.app.router.add_delete("/jobs/{id}", self._cancel)
        self.app.router.add_get("/out.png", answering(body=PNG, content_type="image/png"))

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        return web.json_response({"job": {"id": "a/b 7"}}, status=202)

    async def _status(self, request: web.Request) -> web.Response:
        assert request.match_info["id"] == "a/b 7"
        said = self.script[min(self.looks, len(self.script) - 1)]
        self.looks += 1
        self.looked.set()
        if isinstance(said, dict):
            return web.json_response(said)
        return web.Response(status=said[0], headers=said[1])

    async def _cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["id"])
        self.script = [{"status": "CANCELLED"}]
        return web.Response(status=204)


POLL: dict[str, Any] = {
    "mode": "poll",
    "path": "/jobs",
    "id_field": "job.id",
    "status_path": "/jobs/{id}/status",
    "status_field": "status",
    "done": ["COMPLETED"],
    "failed": ["FAILED"],
    "cancelled": ["CANCELLED"],
    "progress_field": "progress",
    "progress_max": 100,
    "result_field": "output",
    "outputs_field": "images",
    "error_field": "reason",
    "cancel_path": "/jobs/{id}",
    "cancel_method": "DELETE",
    "interval_s": 0.01,
}
RUNS = {"status": "IN_PROGRESS", "progress": 40}
DONE = {"status": "completed", "output": {"text": "hello"}, "images": ["/out.png"]}


async def poll_outcome(stage: Stage, service: Polled, **options: Any) -> Result | JobError:
    async with serving(service.app) as url:
        return await outcome(Http(url, {**POLL, **options}), stage)


async def test_a_polled_job_is_followed_to_its_result(stage: Stage) -> None:
    service = Polled({"status": "IN_QUEUE"}, RUNS, {"status": "IN_PROGRESS", "progress": 30}, DONE)
    found = await poll_outcome(stage, service)
    assert isinstance(found, Result) and found.detail == {"text": "hello"}
    assert [stage.saved(o) for o in found.outputs] == [PNG]
    assert stage.refs == ["a/b 7"] and service.submitted == [{"prompt": "a cat", "n": 2}]
    assert [(p.fraction, p.message) for p in stage.told] == [
        *((0.0, "in_queue"), (0.4, "in_progress"), (0.4, "in_progress"))
    ]


@pytest.mark.parametrize(
    ("script", "words", "retryable"),
    [
        ([RUNS, {"status": "FAILED", "reason": "out of paint"}], "out of paint", False),
        ([{"status": "FAILED"}], "the service says failed", False),
        ([{"status": "CANCELLED"}], "cancelled on the service", False),
        ([RUNS, (404, {})], "lost the run a/b 7", True),
        ([RUNS, (403, {})], "answered 403", False),
        ([{"progress": 1}], "no status at status", False),
        ([{"success": False, "reason": "broken"}], "broken", False),
    ],
)
async def test_a_polled_job_that_fails(stage: Stage, script: list[Any], words: str, retryable: bool) -> None:
    found = await poll_outcome(stage, Polled(*script))
    assert isinstance(found, JobError) and words in found.message and found.retryable == retryable


async def test_a_submission_without_an_id_says_where_it_was_looked_for(stage: Stage) -> None:
    found = await poll_outcome(stage, Polled(DONE), id_field="uuid")
    assert isinstance(found, JobError) and "no id at uuid" in found.message and not found.retryable


async def test_a_service_that_stumbles_is_asked_again(stage: Stage) -> None:
    service = Polled(RUNS, (500, {}), (429, {"Retry-After": "0"}), (503, {}), DONE)
    assert isinstance(await poll_outcome(stage, service), Result)
    assert service.looks == 5 and len(service.submitted) == 1


async def test_a_service_that_is_away_for_long_gives_the_job_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "GONE_S", 0.05)
    found = await poll_outcome(stage, Polled(RUNS, (502, {})))
    assert isinstance(found, JobError) and found.retryable and "502" in found.message


async def test_a_service_says_when_to_come_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "MAX_WAIT_S", 0.3)
    began = time.monotonic()
    await poll_outcome(stage, Polled((429, {"Retry-After": "7200"}), DONE))
    assert 0.3 <= time.monotonic() - began < 5


async def test_looks_become_rarer_while_nothing_changes(stage: Stage) -> None:
    service = Polled(RUNS)
    async with serving(service.app) as url, asyncio.timeout(10):
        connector = Http(url, {**POLL, "interval_s": 0.01, "max_interval_s": 1000})
        running = asyncio.create_task(outcome(connector, stage))
        while service.looks < 8:  # at 0.01 · 1.5^n s
            await asyncio.sleep(0.01)
        began = time.monotonic()
        while service.looks < 9:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.05
        await connector.cancel()
        await running


async def test_cancel_stops_a_polled_run_on_the_service(stage: Stage) -> None:
    service = Polled(RUNS)
    async with serving(service.app) as url, asyncio.timeout(10):
        connector = Http(url, {**POLL, "interval_s": 1000, "max_interval_s": 1000})
        running = asyncio.create_task(outcome(connector, stage))
        await service.looked.wait()
        await connector.cancel()
        found = await running
    assert isinstance(found, JobError) and not found.retryable and service.cancelled == ["a/b 7"]


async def test_a_run_that_ends_before_its_cancellation_keeps_its_result(stage: Stage) -> None:
    service = Polled(RUNS)
    async with serving(service.app) as url, asyncio.timeout(10):
        connector = Http(url, {**POLL, "cancel_path": None, "interval_s": 1000, "max_interval_s": 1000})
        running = asyncio.create_task(outcome(connector, stage))
        await service.looked.wait()
        service.script = [DONE]
        await connector.cancel()
        assert isinstance(await running, Result)


# recovery


async def recovered(stage: Stage, *script: Any, wait: bool) -> Result | None:
    service = Polled(*script)
    async with serving(service.app) as url:
        connector = Http(url, POLL)
        assert isinstance(connector, Recovers)
        try:
            return await connector.recover(stage.run("2"), "a/b 7", wait=wait)
        finally:
            await connector.close()
            assert service.submitted == [], "the job is not begun again"


async def test_what_an_earlier_run_came_to_is_kept(stage: Stage) -> None:
    for wait, script in ((False, [DONE]), (True, [RUNS, RUNS, DONE])):
        found = await recovered(stage, *script, wait=wait)
        assert found is not None and found.detail == {"text": "hello"}
        assert found.outputs[0].path.startswith("2/") and stage.saved(found.outputs[0]) == PNG
    with pytest.raises(StillRuns):
        await recovered(stage, RUNS, wait=False)
    for wait in (True, False):
        assert await recovered(stage, (404, {}), wait=wait) is None
        assert await recovered(stage, {"status": "CANCELLED"}, wait=wait) is None
        with pytest.raises(RunFailed, match="out of paint") as caught:
            await recovered(stage, {"status": "FAILED", "reason": "out of paint"}, wait=wait)
        assert not caught.value.error.retryable


async def test_nothing_is_known_of_a_run_while_the_service_is_away(stage: Stage) -> None:
    connector = Http(f"http://127.0.0.1:{free_port()}", POLL)
    with pytest.raises(RunFailed) as caught:
        await connector.recover(stage.run(), "7", wait=False)
    assert caught.value.error.retryable
    await connector.close()


async def test_a_synchronous_run_leaves_nothing_to_recover(stage: Stage) -> None:
    connector = Http(f"http://127.0.0.1:{free_port()}", {"path": "/run"})
    assert await connector.recover(stage.run(), "7", wait=True) is None


# probe and options


async def test_any_answer_below_500_is_idle(stage: Stage) -> None:
    app = web.Application()
    app.router.add_get("/fine", answering(status=401))
    app.router.add_get("/bad", answering(status=500))
    app.router.add_get("/away", answering(status=302, headers={"Location": "http://192.0.2.1/"}))
    async with serving(app) as url:
        for path, status, words in (
            ("/fine", ConnectorStatus.IDLE, ""),
            ("/", ConnectorStatus.IDLE, ""),
            ("/away", ConnectorStatus.IDLE, ""),
            ("/bad", ConnectorStatus.ERROR, "/bad answers 500"),
        ):
            connector = Http(url, {"path": "/run", "health_path": path})
            report = await connector.probe()
            assert report.status is status and words in report.detail
            await connector.close()
    connector = Http(url, {"path": "/run"})
    report = await connector.probe()
    assert report.status is ConnectorStatus.ERROR and "does not answer" in report.detail
    await connector.close()


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({}, "path is missing", "/generate"),
        ({"path": "/x", "metod": "PUT"}, "metod is unknown", "did you mean method?"),
        ({"path": "/x", "method": "PATC"}, "method does not fit: Invalid enum value 'PATC'", "docs/connectors.md"),
        ({"path": 3}, "path does not fit: Expected `str`, got `int`", ""),
        ({"path": "x"}, "path must begin with one /, found 'x'", ""),
        ({"path": "//evil/x"}, "path must begin with one /", ""),
        ({"path": "/{id}"}, "path holds {id}, which has no value there", "{job_id}"),
        ({"path": "/x", "interval_s": 0}, "interval_s must be more than 0, found 0", ""),
        ({"path": "/x", "timeout_s": "soon"}, "timeout_s does not fit", ""),
        ({"path": "/x", "id_field": "id"}, "id_field has no meaning in mode sync", "mode: poll"),
        ({"path": "/x", "status_field": "s"}, "done is missing", ""),
        ({"path": "/x", "mode": "poll", "id_field": "id"}, "status_path is missing", "id_field, status_path"),
        ({"path": "/x", "headers": {"A": {"env": "NOT_SET_ANYWHERE"}}}, "headers.A needs the environment variable", ""),
        ({"path": "/x", "headers": {"A": {"file": "x"}}}, "headers[...] does not fit", ""),
        ({"path": "/x", "headers": {"A:": "x"}}, "headers.A: is not a header", ""),
        ({"path": "/x", "headers": {"A": "se\ncret"}}, "headers.A is not a header", ""),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(CannotLoad) as caught:
        Http("http://127.0.0.1:1", options)
    assert words in caught.value.message and hint in caught.value.hint
    assert "se\ncret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://h:99999"])
def test_an_url_that_is_none(url: str) -> None:
    with pytest.raises(CannotLoad, match="not the URL of a service"):
        Http(url, {"path": "/x"})
