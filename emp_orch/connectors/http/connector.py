"""The `http` connector: a REST service that answers with the result (`sync`), or with an id to ask about (`poll`).

docs/connectors.md lists the options.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, assert_never

import aiohttp
import msgspec

from emp_orch.connectors import base
from emp_orch.connectors.base import PROBE_TIMEOUT_S, Run, RunFailed, StillRuns
from emp_orch.connectors.http.answers import Look, Phase, body_for, json_of, look_at, pick, refusal, seconds_to_wait
from emp_orch.connectors.http.answers import failure as failure_of
from emp_orch.connectors.http.client import NETWORK, Requests, base_url, is_json, name_of
from emp_orch.connectors.outputs import body_of, content_type_of, once
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Job, Output, Progress, Result
from emp_orch.options.http import filled, headers_of, options_of, secrets_of

POLL_TIMEOUT_S = 30.0
CANCEL_TIMEOUT_S = 5.0
AGAIN_S = 0.5
# A service that is full is asked again when it says so, if that is soon; else the job goes back to the queue.
FULL_WAIT_S = 30.0
MAX_WAIT_S = 60.0
# A larger JSON answer becomes an output: results are kept in Redis.
MAX_DETAIL_BYTES = 64 * 1024


class Http:
    """Runs jobs on a REST service, as its options say."""

    kind = "http"

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._options = options_of(options)
        headers = headers_of(self._options)
        self._requests = Requests(base_url(url), headers, secrets_of(self._options, headers))
        self._timeout_s = self._options.timeout_s or (POLL_TIMEOUT_S if self._options.mode == "poll" else None)
        self._stop = asyncio.Event()
        self._job: Job | None = None
        self._ref: str | None = None

    async def probe(self) -> ConnectorReport:
        path = self._options.health_path
        try:
            async with self._requests.ask(
                "GET", self._requests.url(path), timeout_s=PROBE_TIMEOUT_S, redirects=0
            ) as answer:
                if answer.status < 500:
                    return ConnectorReport(status=ConnectorStatus.IDLE)
                detail = f"{self._requests.shown}{path} answers {answer.status}"
        except NETWORK as e:
            detail = self._gone(e).error.message
        return ConnectorReport(status=ConnectorStatus.ERROR, detail=detail)

    async def run(self, run: Run) -> Result:
        with self._running(run.job):
            if self._options.mode == "sync":
                return await self._unless_stopped(self._call(run))
            ref = await self._submit(run)
            await run.began(ref)
            self._ref = ref
            if self._stop.is_set():  # while the job was on its way
                await self._ask_to_stop(run.job)
            look = await self._end_of(ref, run)
            match look.phase:
                case Phase.UNKNOWN:
                    raise RunFailed(f"the service at {self._requests.shown} lost the run {ref}", retryable=True)
                case Phase.STOPPED:
                    raise RunFailed("the run was cancelled on the service", retryable=False)
                case _:
                    return await self._result_of(look, run)

    async def recover(self, run: Run, ref: str, *, wait: bool) -> Result | None:
        if self._options.mode == "sync":
            return None
        with self._running(run.job):
            self._ref = ref
            look = await self._end_of(ref, run) if wait else await self._look(ref, run.job)
            match look.phase:
                case Phase.RUNS:
                    raise StillRuns
                case Phase.UNKNOWN:
                    return None
                case Phase.STOPPED if not self._stop.is_set():
                    return None
                case _:
                    return await self._result_of(look, run)

    async def cancel(self) -> None:
        """Ask at `cancel_path`; without one the connection is closed, or the run left to itself."""
        try:
            # Before a polled service gave an id there is nothing to name; `run` asks once it has one.
            if self._job is not None and (self._ref is not None or self._options.mode == "sync"):
                await self._ask_to_stop(self._job)
        except NETWORK as e:
            raise self._gone(e) from e
        finally:
            self._stop.set()

    async def close(self) -> None:
        await self._requests.close()

    @contextlib.contextmanager
    def _running(self, job: Job) -> Iterator[None]:
        """The present run; what the network raises within becomes RunFailed."""
        self._stop.clear()
        self._job = job
        try:
            yield
        except NETWORK as e:
            raise self._gone(e) from e
        finally:
            self._job = self._ref = None

    def _gone(self, cause: BaseException) -> RunFailed:
        return self._requests.gone(cause)

    async def _ask_to_stop(self, job: Job) -> None:
        if self._options.cancel_path is None:
            return
        url = self._requests.url(filled(self._options.cancel_path, job.id, self._ref or ""))
        async with self._requests.ask(self._options.cancel_method, url, timeout_s=CANCEL_TIMEOUT_S) as answer:
            if answer.status >= 300:  # 404 and 409 too: what became of the run, the run itself will see
                raise refusal(answer.status, await self._requests.read(answer), self._options.error_field)

    # one request for the job

    @contextlib.asynccontextmanager
    async def _post(self, job: Job) -> AsyncIterator[aiohttp.ClientResponse]:
        """The good answer to the job. A service that is full, and says for how long, is asked again a while."""
        url = self._requests.url(filled(self._options.path, job.id, ""))
        body = body_for(self._options.body, job)
        left_s = FULL_WAIT_S
        while True:
            async with self._requests.ask(self._options.method, url, json=body, timeout_s=self._timeout_s) as answer:
                if 200 <= answer.status < 300:
                    yield answer
                    return
                refused = refusal(answer.status, await self._requests.read(answer), self._options.error_field)
                wait_s = _retry_after(answer)
            if wait_s is None or wait_s > left_s or answer.status not in (429, 503):
                raise refused
            left_s -= max(wait_s, AGAIN_S)
            if await self._stopped_within(max(wait_s, AGAIN_S)):
                raise RunFailed("the run was stopped before the service took it", retryable=False)

    async def _call(self, run: Run) -> Result:
        """Mode sync: the answer is the result."""
        async with self._post(run.job) as answer:
            if not is_json(answer):
                if answer.status == 204 or answer.content_length == 0:
                    return Result()
                return Result(outputs=(await _save(answer, run),))
            value = json_of(await self._requests.read(answer))
        look = look_at(value, self._options, judge=self._options.status_field is not None)
        if look.phase is Phase.RUNS:
            words = f"the service's answer says {look.word!r}, which is none of done, failed and cancelled"
            raise RunFailed(words, retryable=False)
        return await self._result_of(look, run)

    async def _unless_stopped(self, call: Coroutine[Any, Any, Result]) -> Result:
        """The result of `call`, which is cut off when `cancel` was called."""
        work = asyncio.create_task(call)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise RunFailed("the run was stopped: the request was cut off", retryable=False)
        finally:
            work.cancel()
            stop.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    # polling

    async def _submit(self, run: Run) -> str:
        """The service's own id of the run."""
        async with self._post(run.job) as answer:
            value = json_of(await self._requests.read(answer))
        ref = pick(value, self._options.id_field or "")
        if isinstance(ref, bool) or not isinstance(ref, str | int) or ref == "":
            if (no := failure_of(value, self._options.error_field)) is not None:
                raise no
            raise RunFailed(f"the service's answer has no id at {self._options.id_field}", retryable=False)
        return str(ref)

    async def _look(self, ref: str, job: Job) -> Look:
        """One look at the run. Raises NETWORK errors; RunFailed when the service refuses to say."""
        url = self._requests.url(filled(self._options.status_path or "", job.id, ref))
        async with self._requests.ask("GET", url, timeout_s=self._timeout_s) as answer:
            if answer.status in (404, 410):
                return Look(phase=Phase.UNKNOWN)
            body = await self._requests.read(answer)
            if answer.status >= 300:
                raise _Refused(refusal(answer.status, body, self._options.error_field), _retry_after(answer))
            look = look_at(json_of(body), self._options, judge=True)
            return msgspec.structs.replace(look, wait_s=_retry_after(answer) or 0.0)

    async def _end_of(self, ref: str, run: Run) -> Look:
        """Poll until the run is over; slower while nothing changes, and as late as the service asks."""
        loop = asyncio.get_running_loop()
        heard, pause_s, best = loop.time(), self._options.interval_s, 0.0
        before = ("", -1.0)
        while True:
            stopped, wait_s = self._stop.is_set(), 0.0
            try:
                look = await self._look(ref, run.job)
            except (_Refused, *NETWORK) as e:
                asked_s = e.wait_s if isinstance(e, _Refused) else None
                if isinstance(e, _Refused) and not e.error.retryable:
                    raise
                if asked_s is None and loop.time() - heard > base.GONE_S:
                    raise
                wait_s = asked_s or 0.0
            else:
                heard = loop.time()
                if look.phase is not Phase.RUNS:
                    return look
                best = max(best, look.fraction)
                await run.progress(Progress(fraction=best, message=look.word))
                wait_s = look.wait_s
                still = (look.word, look.fraction) == before
                pause_s = min(pause_s * 1.5, self._options.max_interval_s) if still else self._options.interval_s
                before = (look.word, look.fraction)
            if stopped:
                raise RunFailed("the run was stopped", retryable=False)
            await self._stopped_within(max(pause_s, min(wait_s, MAX_WAIT_S)))

    async def _stopped_within(self, seconds: float) -> bool:
        """Rest for `seconds`, or until a stop is asked for; whether it was."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()

    # results

    async def _result_of(self, look: Look, run: Run) -> Result:
        match look.phase:
            case Phase.DONE:
                pass
            case Phase.FAILED:
                raise look.error or RunFailed("the service says that the run failed", retryable=False)
            case Phase.STOPPED:
                raise RunFailed("the run was cancelled on the service", retryable=False)
            case Phase.RUNS | Phase.UNKNOWN:
                raise AssertionError(look.phase)
            case _:
                assert_never(look.phase)
        options = self._options
        outputs: list[Output] = []
        if options.outputs_field is not None:
            found = pick(look.answer, options.outputs_field)
            links = found if isinstance(found, list) else [] if found is None else [found]
            outputs = [await self._download(link, run) for link in links]
        value = look.answer if options.result_field is None else pick(look.answer, options.result_field)
        encoded = msgspec.json.encode(value)
        if len(encoded) > MAX_DETAIL_BYTES:
            outputs.append(await run.save("result.json", "application/json", once(encoded)))
            return Result(outputs=tuple(outputs))
        detail = value if isinstance(value, dict) else {} if value is None else {"result": value}
        return Result(outputs=tuple(outputs), detail=detail)

    async def _download(self, link: Any, run: Run) -> Output:
        """Copy what lies at `link` into the artifact store; begun again for a while when the connection breaks."""
        link = link.get("url") if isinstance(link, dict) else link
        if not isinstance(link, str):
            raise RunFailed(f"{self._options.outputs_field} holds {type(link).__name__}, not links", retryable=False)
        url = self._requests.own(link)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + base.GONE_S
        while True:
            try:
                async with self._requests.ask("GET", url) as answer:
                    if answer.status != 200:
                        words = f"the service made {url.path} but answered {answer.status} for it"
                        raise RunFailed(words, retryable=True)
                    return await _save(answer, run)
            except NETWORK:
                if loop.time() > give_up:
                    raise
            await asyncio.sleep(AGAIN_S)


class _Refused(RunFailed):
    """A look that the service refused; `wait_s`: when it asks to come back."""

    def __init__(self, failure: RunFailed, wait_s: float | None) -> None:
        super().__init__(failure.error.message, retryable=failure.error.retryable, detail=failure.error.detail)
        self.wait_s = wait_s


def _retry_after(answer: aiohttp.ClientResponse) -> float | None:
    return seconds_to_wait(answer.headers.get("Retry-After"), time.time())


async def _save(answer: aiohttp.ClientResponse, run: Run) -> Output:
    name = name_of(answer)
    return await run.save(name, content_type_of(answer, name), body_of(answer))
