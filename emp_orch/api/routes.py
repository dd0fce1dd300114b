"""The one table of routes: what is served, and what `/openapi.json` says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from msgspec import Struct

from emp_orch.api import (
    artifacts,
    assets,
    commands,
    job_stream,
    job_submit,
    jobs,
    join,
    logs,
    metrics,
    packages,
    previews,
    reads,
    sse,
    ws_client,
    ws_monitor,
)
from emp_orch.api.drift_story import StoryView
from emp_orch.api.job_views import JobDetail, JobExplanation, JobList, LaneList, OutputView
from emp_orch.api.views import State

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Param(Struct, frozen=True):
    """A query parameter."""

    name: str
    summary: str
    integer: bool = False


class Route(Struct, frozen=True, kw_only=True):
    """`result` is the type under `data`; None: described by `summary` alone. `more`: schemas of what stands beside it.

    `kind` is json, text, binary, sse or websocket. `form`: the body is multipart/form-data of files.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    result: Any = None
    body: Any = None
    query: tuple[Param, ...] = ()
    headers: tuple[Param, ...] = ()
    more: Mapping[str, Any] = {}
    statuses: tuple[int, ...] = (200,)
    kind: str = "json"
    form: bool = False


def get(path: str, handler: Handler, summary: str, tag: str, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, tag=tag, **more)


def post(path: str, handler: Handler, summary: str, tag: str, **more: Any) -> Route:
    return Route(method="POST", path=path, handler=handler, summary=summary, tag=tag, **more)


WAIT = (Param("wait", "seconds to wait for the outcome, 0 to 60; then 202", True),)
ASKED = (200, 202, 404, 409)
LIMIT = Param("limit", "how many, at most 1000", True)
OFFSET = Param("offset", "how many to pass over", True)

ROUTES: tuple[Route, ...] = (
    get("/health", reads.health, "This process answers; the body says whether Redis does", "server"),
    get("/ready", reads.ready, "Redis answers and the subscriptions stand", "server", statuses=(200, 503)),
    get("/version", reads.version, "The version of emp, and the fleet", "server"),
    get("/packages/{digest}", packages.package, "A worker package, a tar; Range and If-None-Match are heeded",
        "server", kind="binary", statuses=(200, 206, 304, 404, 416, 429)),
    get("/metrics", metrics.metrics, "Prometheus metrics", "server", kind="text"),
    get("/api/monitor/state", reads.monitor_state, "Everything one look sees", "state", result=State,
        more={"revision": {"type": "integer"}}),
    get(
        "/api/events/monitor",
        sse.monitor_events,
        "connected, full_state_snapshot, then every event; Last-Event-ID resumes",
        "state",
        kind="sse",
        query=(Param("live", "1: always the snapshot, then also `heartbeat` every 2 s, and on change `delta` "
                     "{revision, base, timestamp, set, gone}: what differs from revision `base`. Who lacks `base` "
                     "connects again"),
               Param("every", "milliseconds: what comes in that time is sent at once, which costs both less")),
    ),
    get(
        "/api/events",
        reads.recent_events,
        "The last events, oldest first",
        "state",
        result=list[reads.EventView],
        query=(LIMIT, Param("after", "only those after this event id"), Param("type", "only those of this type")),
    ),
    get("/api/drift", reads.drift, "What differs, since when, and what emp does about it", "state"),
    get("/api/plan", reads.plan, "What the reconciler would do now, as text", "state"),
    get(
        "/api/generations", reads.generations, "Applied generations, newest first", "state",
        result=list[reads.GenerationView],
    ),
    get(
        "/api/journal", reads.journal, "Drift, decisions, actions and outcomes, oldest first", "state",
        result=list[reads.EventView], statuses=(200, 400), more={"more": {"type": ["string", "null"]}},
        query=(LIMIT, Param("since", "only those of the last 30m, 1h, 2d, or since an RFC 3339 time"),
               Param("machine", "only those about it"), Param("type", "only these types, divided by commas"),
               Param("kind", "only those about these kinds of drift"),
               Param("before", "only those before this id: the last page's `more`"),
               Param("after", "only those after this id")),
    ),
    get(
        "/api/drift/{kind}/{machine_id}/{subject}", reads.drift_story,
        "One drift by its key: what stands, what was decided and tried, former times", "state",
        result=StoryView, statuses=(200, 404),
    ),
    get(
        "/api/logs/{component}", logs.tail_log, "The end of one log", "state",
        query=(Param("lines", "how many, at most 5000", True),), statuses=(200, 400, 404),
    ),
    post("/api/jobs", job_submit.submit,
         "Submit a job, or a list of up to 10,000 (all are checked before any is queued). One: 201; 200 when it was "
         "there already; 409 when its id is another job's. A list: 201, or 207 with success false when ids are other "
         "jobs': those items say conflict, all others are queued; or when Redis took only the first of them, which are "
         "those in the answer. Idempotency-Key: that of a single job",
         "jobs", body=job_submit.JobsBody, result=job_submit.SubmittedView | list[job_submit.SubmittedView],
         query=(Param("wait", "of one job: answer when it has ended, or after so many seconds (300)", True),),
         headers=(Param(job_submit.KEY_HEADER, "as the field idempotency_key, for a single job"),),
         more={"job_id": {"type": "string"}, "job_ids": {"type": "array", "items": {"type": "string"}}},
         statuses=(200, 201, 207, 400, 409, 413)),
    get("/api/jobs", jobs.list_jobs, "Jobs, newest first", "jobs", result=JobList, statuses=(200, 400),
        query=(LIMIT, OFFSET, Param("status", "only those in this status"), Param("service", "only those for it"),
               Param("worker", "only those it holds or ended"), Param("lane", "only those of this lane"))),
    post("/api/jobs/purge", jobs.purge, "Forget ended jobs, their results and artifacts", "jobs", body=jobs.PurgeBody,
         statuses=(200, 400)),
    get("/api/lanes", jobs.list_lanes, "Lanes that hold jobs, deepest first: depth, oldest wait, who could serve them",
        "jobs", result=LaneList, query=(LIMIT, OFFSET), statuses=(200, 400)),
    get("/api/jobs/{id}", jobs.get_job, "The whole of one job", "jobs", result=JobDetail, statuses=(200, 404)),
    get("/api/jobs/{id}/explain", jobs.explain_job, "For each worker what stands between it and a waiting job", "jobs",
        result=JobExplanation, statuses=(200, 404)),
    get("/api/jobs/{id}/progress", job_stream.progress,
        "job; what its runs said so far; its events; and job again when it has ended. Last-Event-ID resumes; 204 after "
        "the end", "jobs", kind="sse", statuses=(200, 204, 404),
        query=(Param("preview", "1: also `preview` {job_id, image}: a picture of the run as a data URL"),)),
    get("/api/jobs/{id}/preview", previews.preview,
        "A picture of the running job, if it shows one; waits a moment for another than If-None-Match names", "jobs",
        kind="binary", statuses=(200, 204, 304, 404, 503)),
    post("/api/jobs/{id}/cancel", jobs.cancel, "Cancel a job", "jobs", body=jobs.CancelBody, statuses=(200, 404)),
    post("/api/jobs/{id}/retry", jobs.retry, "Run an ended job again", "jobs", statuses=(200, 404, 409)),
    get("/api/jobs/{id}/artifacts", artifacts.list_artifacts, "What the job made", "jobs", result=list[OutputView],
        statuses=(200, 404)),
    get("/api/jobs/{id}/artifacts/{name}", artifacts.artifact, "One output; Range and If-None-Match are heeded",
        "jobs", kind="binary", statuses=(200, 206, 304, 404, 410, 416)),
    Route(method="HEAD", path="/api/jobs/{id}/artifacts/{name}", handler=artifacts.artifact, tag="jobs",
          summary="Size, type and ETag of one output", kind="binary", statuses=(200, 206, 304, 404, 410, 416)),
    post("/api/assets", assets.upload,
         "Keep files that jobs may name as inputs: multipart/form-data, one part a file, up to 64. What is there "
         "already is not written again; jobs.inputs.keep says how long it stays", "jobs", form=True,
         result=assets.AssetList, more={"assets": {"type": "array"}}, statuses=(201, 400, 409, 413)),
    get("/api/assets/{digest}", assets.asset, "The content of one asset; Range and If-None-Match are heeded", "jobs",
        kind="binary", statuses=(200, 206, 304, 404, 416)),
    Route(method="HEAD", path="/api/assets/{digest}", handler=assets.asset, tag="jobs", kind="binary",
          summary="Whether an asset is kept, and its size; it is kept on as if a job had named it",
          statuses=(200, 206, 304, 404, 416)),
    post("/api/machines/{id}/restart", commands.restart_machine, "Restart a machine", "commands",
         query=WAIT, statuses=ASKED),
    post("/api/machines/{id}/programs/{program}/restart", commands.restart_program, "Restart one program", "commands",
         query=WAIT, statuses=ASKED),
    Route(
        method="DELETE", path="/api/machines/{id}", handler=commands.forget_machine, tag="commands",
        summary="Forget an offline machine", query=WAIT, statuses=ASKED,
    ),
    post("/api/reconcile/pause", commands.pause_reconciler, "Pause the fleet, a machine or a program",
         "commands", body=commands.ScopeBody),
    post("/api/reconcile/resume", commands.resume_reconciler, "Let the reconciler act again", "commands",
         body=commands.ScopeBody),
    post("/api/machines/{id}/drain", commands.drain_machine, "Let a machine's workers finish and end", "commands",
         body=commands.DrainBody),
    post("/api/machines/{id}/join", join.join,
         "For an external machine with a token of `emp machine join`: the way to Redis, and what it is to run",
         "machines", statuses=(200, 403, 404, 429)),
    get("/ws/monitor/{id}", ws_monitor.monitor_socket, "The events stream over WebSocket", "state", kind="websocket"),
    get("/ws/client/{id}", ws_client.client_socket, "Submit, watch and cancel jobs over WebSocket", "jobs",
        kind="websocket"),
)  # fmt: skip
