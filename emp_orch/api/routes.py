"""The one table of routes: what is served, and what `/openapi.json` says of it."""

from __future__ import annotations

from aiohttp import web

from emp_orch.api.gate import socket as gate
from emp_orch.api.handlers import (
    artifacts,
    assets,
    job_submit,
    jobs,
    join,
    logs,
    machines,
    metrics,
    packages,
    pool_size,
    pools,
    previews,
    reads,
    work,
)
from emp_orch.api.handlers.job_wait import MAX_WAIT_S
from emp_orch.api.stream import job_stream, sse, ws_client, ws_monitor
from emp_orch.api.views import openapi
from emp_orch.api.views.drift_story import StoryView
from emp_orch.api.views.fleet import State
from emp_orch.api.views.jobs import JobDetail, JobExplanation, JobList, LaneList, OutputView
from emp_orch.api.views.pool_detail import PoolDetail
from emp_orch.api.views.pools import PoolView
from emp_orch.api.views.query import NAME
from emp_orch.api.views.route import Kind, Opens, Param, Route, choice, get, head, matching, number, post, text
from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.states import JobStatus
from emp_orch.roles import Role
from emp_orch.store.acl.joining import Asking, Leaving
from emp_orch.store.queue.submit import MAX_PAGE

DOCUMENT = "/openapi.json"
# What machines ask with their own tokens.
WORK = "work"
ANY = frozenset(Role)
# Machines, their drift, events and logs: not for who hands in jobs.
LOOKS = frozenset({Role.READ, Role.OPERATE})
SUBMITS = frozenset({Role.SUBMIT, Role.OPERATE})
OPERATES = frozenset({Role.OPERATE})
WAIT = (number("wait", "seconds to wait for the outcome; then 202", 0, machines.WAIT_MAX_S),)
ASKED = (200, 202, 404, 409)
LIMIT = number("limit", "how many", 1, MAX_PAGE)
OFFSET = number("offset", "how many to pass over", 0, jobs.MAX_OFFSET)
RANGE = Param("Range", "bytes=FIRST-LAST: only those; more than one range, or what is none, is no matter")
KNOWN = Param("If-None-Match", "304 when it is this")
HEARD = Param("Last-Event-ID", "go on behind this event")
HEARD_QUERY = Param("last_event_id", "as the header, where none can be set")
SWITCHED = (101, 426)
AS_OF = {"as_of": {"type": ["string", "null"], "format": "date-time"}}
PARTS = (200, 206, 304, 404, 416)
EVENT_ID = r"[0-9]{1,20}-[0-9]{1,20}"
DIGEST = {"digest": text(r"(sha256:)?[0-9a-f]{64}")}
OUTPUT = {"name": openapi.PART}
SOCKET = {"id": openapi.PART}

ROUTES: tuple[Route, ...] = (
    get("/health", reads.health, "This process answers; the body says whether Redis does", "server", ANY, redis=False,
        opens=Opens.ANYBODY),
    get("/ready", reads.ready, "Redis answers and the subscriptions stand", "server", ANY),
    get("/version", reads.version, "The version of emp, and the fleet", "server", ANY, redis=False),
    get(DOCUMENT, openapi.serve, "This document", "server", ANY, kind=Kind.DOCUMENT, redis=False),
    head(DOCUMENT, openapi.serve, "The size of this document", "server", ANY, kind=Kind.DOCUMENT, redis=False),
    get("/packages/{digest}", packages.package, "A worker package, a tar; Range and If-None-Match are heeded",
        "server", OPERATES, kind=Kind.BINARY, content=("application/x-tar",), names={"digest": text("[0-9a-f]{64}")},
        headers=(RANGE, KNOWN), redis=False, opens=Opens.BOTH, statuses=(*PARTS, 429)),
    get("/metrics", metrics.metrics, "Prometheus metrics", "server", LOOKS, kind=Kind.TEXT, redis=False),
    get("/api/monitor/state", reads.monitor_state, "Everything one look sees", "state", LOOKS, result=State,
        more={"revision": {"type": "integer"}}),
    get(
        "/api/events/monitor",
        sse.monitor_events,
        "connected, full_state_snapshot, then every event; Last-Event-ID resumes",
        "state", LOOKS,
        kind=Kind.SSE, redis=False, headers=(HEARD,),
        query=(choice("live", "1: always the snapshot, then also `heartbeat` every 2 s, and on change `delta` "
                      "{revision, base, timestamp, set, gone}: what differs from revision `base`. Who lacks `base` "
                      "connects again", "0", "1"),
               number("every", "milliseconds: what comes in that time is sent at once, which costs both less",
                      0, sse.MAX_EVERY_MS),
               HEARD_QUERY),
    ),
    get(
        "/api/events",
        reads.recent_events,
        "The last events, oldest first",
        "state", LOOKS,
        result=list[reads.EventView],
        query=(LIMIT, matching("after", "only those after this event id", EVENT_ID),
               Param("type", "only those of this type")),
    ),
    get("/api/drift", reads.drift, "What differs, since when, and what emp does about it", "state", LOOKS),
    get("/api/plan", reads.plan, "What the reconciler would do now, as text", "state", LOOKS),
    get(
        "/api/generations", reads.generations, "Applied generations, newest first", "state", LOOKS,
        result=list[reads.GenerationView], more={"damaged": {"type": "array", "items": {"type": "string"}}},
    ),
    get("/api/pools", pools.list_pools, "The pools: how many members each has and should have, and why", "pools", LOOKS,
        result=list[PoolView], more=AS_OF),
    get("/api/pools/{name}", pools.get_pool, "One pool, with its members and what each is at", "pools", LOOKS,
        result=PoolDetail, more=AS_OF, statuses=(200, 404)),
    get(
        "/api/journal", reads.journal, "Drift, decisions, actions and outcomes, oldest first", "state", LOOKS,
        result=list[reads.EventView], more={"more": {"type": ["string", "null"]}},
        query=(LIMIT, Param("since", "only those of the last 30m, 1h, 2d, or since an RFC 3339 time"),
               matching("machine", "only those about it", NAME),
               matching("pool", "only those about it and its members", NAME),
               Param("type", "only these types, divided by commas"),
               Param("kind", "only those about these kinds of drift"),
               matching("before", "only those before this id: the last page's `more`; not with `after`", EVENT_ID),
               matching("after", "only those after this id", EVENT_ID)),
    ),
    get(
        "/api/drift/{kind}/{machine_id}/{subject}", reads.drift_story,
        "One drift by its key: what stands, what was decided and tried, former times", "state", LOOKS,
        result=StoryView, statuses=(200, 404),
    ),
    get(
        "/api/logs/{component}", logs.tail_log, "The end of one log", "state", LOOKS,
        names={"component": text(logs.COMPONENT.pattern)}, query=(number("lines", "how many", 1, logs.MAX_LINES),),
        statuses=(200, 404), redis=False,
    ),
    post("/api/jobs", job_submit.submit,
         "Submit a job, or a list of up to 10,000 (all are checked before any is queued). One: 201; 200 when it was "
         "there already; 409 when its id is another job's. A list: 201, or 207 with success false when ids are other "
         "jobs': those items say conflict, all others are queued; or when Redis took only the first of them, which are "
         "those in the answer. Idempotency-Key: that of a single job",
         "jobs", SUBMITS, body=job_submit.JobsBody, result=job_submit.SubmittedView | list[job_submit.SubmittedView],
         query=(number("wait", "of one job: answer when it has ended, or after so many seconds", 0, MAX_WAIT_S),),
         headers=(Param(job_submit.KEY_HEADER, "as the field idempotency_key, for a single job"),),
         more={"job_id": {"type": "string"}, "job_ids": {"type": "array", "items": {"type": "string"}}},
         statuses=(200, 201, 207, 409)),
    get("/api/jobs", jobs.list_jobs, "Jobs, newest first", "jobs", ANY, result=JobList,
        query=(LIMIT, OFFSET, choice("status", "only those in this status", *JobStatus),
               matching("service", "only those for it", NAME),
               matching("worker", "only those it holds or ended", NAME),
               matching("lane", "only those of this lane", NAME))),
    post("/api/jobs/purge", jobs.purge, "Forget ended jobs, their results and artifacts",
         "jobs", OPERATES, body=jobs.PurgeBody),
    get("/api/lanes", jobs.list_lanes, "Lanes that hold jobs, deepest first: depth, oldest wait, who could serve them",
        "jobs", LOOKS, result=LaneList, query=(LIMIT, OFFSET)),
    get("/api/jobs/{id}", jobs.get_job, "The whole of one job", "jobs", ANY, result=JobDetail, statuses=(200, 404)),
    get("/api/jobs/{id}/explain", jobs.explain_job, "For each worker what stands between it and a waiting job",
        "jobs", LOOKS, result=JobExplanation, statuses=(200, 404)),
    get("/api/jobs/{id}/progress", job_stream.progress,
        "job; what its runs said so far; its events; and job again when it has ended. Last-Event-ID resumes; 204 after "
        "the end", "jobs", ANY, kind=Kind.SSE, statuses=(200, 204, 404), headers=(HEARD,),
        query=(choice("preview", "1: also `preview` {job_id, image}: a picture of the run as a data URL", "0", "1"),
               HEARD_QUERY)),
    get("/api/jobs/{id}/preview", previews.preview,
        "A picture of the running job, if it shows one; waits a moment for another than If-None-Match names",
        "jobs", ANY, kind=Kind.BINARY, content=("image/*",), headers=(KNOWN,), statuses=(200, 204, 304, 404)),
    post("/api/jobs/{id}/cancel", jobs.cancel, "Cancel a job",
         "jobs", SUBMITS, body=jobs.CancelBody, empty=True, statuses=(200, 404)),
    post("/api/jobs/{id}/retry", jobs.retry, "Run an ended job again", "jobs", SUBMITS, statuses=(200, 404, 409)),
    get("/api/jobs/{id}/artifacts", artifacts.list_artifacts, "What the job made", "jobs", ANY, result=list[OutputView],
        statuses=(200, 404)),
    get("/api/jobs/{id}/artifacts/{name}", artifacts.artifact, "One output; Range and If-None-Match are heeded",
        "jobs", ANY, kind=Kind.BINARY, content=("*/*",), names=OUTPUT, headers=(RANGE, KNOWN), statuses=(*PARTS, 410)),
    head("/api/jobs/{id}/artifacts/{name}", artifacts.artifact, "Size, type and ETag of one output",
         "jobs", ANY, kind=Kind.BINARY, content=("*/*",), names=OUTPUT, headers=(RANGE, KNOWN),
         statuses=(*PARTS, 410)),
    post("/api/assets", assets.upload,
         "Keep files that jobs may name as inputs: multipart/form-data, one part a file, up to 64. What is there "
         "already is not written again; jobs.inputs.keep says how long it stays", "jobs", SUBMITS, form=True,
         result=assets.AssetList, more={"assets": {"type": "array"}}, statuses=(201,)),
    get("/api/assets/{digest}", assets.asset, "The content of one asset; Range and If-None-Match are heeded",
        "jobs", ANY, kind=Kind.BINARY, content=(assets.TYPE,), names=DIGEST, headers=(RANGE, KNOWN), statuses=PARTS),
    head("/api/assets/{digest}", assets.asset,
         "Whether an asset is kept, and its size; it is kept on as if a job had named it",
         "jobs", ANY, kind=Kind.BINARY, content=(assets.TYPE,), names=DIGEST, headers=(RANGE, KNOWN), statuses=PARTS),
    post("/api/machines/{id}/restart", machines.restart_machine, "Restart a machine", "commands", OPERATES,
         query=WAIT, statuses=ASKED),
    post("/api/machines/{id}/programs/{program}/restart", machines.restart_program, "Restart one program",
         "commands", OPERATES, query=WAIT, statuses=ASKED),
    Route(
        method="DELETE", path="/api/machines/{id}", handler=machines.forget_machine, tag="commands", roles=OPERATES,
        summary="Forget an offline machine", query=WAIT, statuses=ASKED,
    ),
    post("/api/reconcile/pause", machines.pause_reconciler, "Pause the fleet, a machine or a program",
         "commands", OPERATES, body=machines.ScopeBody, empty=True, statuses=(200, 404)),
    post("/api/reconcile/resume", machines.resume_reconciler, "Let the reconciler act again", "commands", OPERATES,
         body=machines.ScopeBody, empty=True, statuses=(200, 404)),
    post("/api/machines/{id}/drain", machines.drain_machine, "Let a machine's workers finish and end",
         "commands", OPERATES, body=machines.DrainBody, empty=True, statuses=(200, 404)),
    post("/api/machines/{id}/join", join.join,
         "For an external machine with a token of `emp machine join`: the way to Redis, and what it is to run",
         "machines", OPERATES, body=Asking, empty=True, opens=Opens.JOIN, statuses=(200, 404, 409, 429)),
    post("/api/pools/{name}/join", join.join_pool,
         "As that of machines, with a token of `emp pool join`: as the member that the box was, or a new one",
         "pools", OPERATES, body=Asking, empty=True, opens=Opens.JOIN, statuses=(200, 404, 409, 429)),
    post("/api/pools/{name}/scale", pool_size.scale_pool,
         "Hold a pool at `size` members; null: it follows its queue again", "commands", OPERATES,
         body=pool_size.ScaleBody, statuses=(200, 404)),
    post("/api/pools/{name}/leave", join.leave_pool,
         "A member's last word, with its own token: it goes in good order, and so many jobs went back",
         "pools", OPERATES, body=Leaving, empty=True, opens=Opens.JOIN, statuses=(200, 409, 429)),
    post(work.PATH, work.check, "Whether outputs can be saved; for machines, with a token of theirs", WORK, OPERATES,
        opens=Opens.MACHINE, redis=False, statuses=(200, 507)),
    Route(method="PUT", path=work.OUTPUT_PATH, handler=work.put_output, tag=WORK, roles=OPERATES,
          result=Output, binary=True,
          summary="Keep an output of a run that a worker of this machine holds: whole, and with the promised digest",
          headers=(Param("Content-Digest", "sha-256=:BASE64:, RFC 9530"),),
          names=OUTPUT, opens=Opens.MACHINE, statuses=(201, 408, 409, 411, 507)),
    get(work.INPUT_PATH, work.get_input, "An input of such a job that is no URL; Range is heeded",
        WORK, OPERATES, kind=Kind.BINARY, content=(assets.TYPE,), names=OUTPUT, headers=(RANGE,), opens=Opens.MACHINE,
        statuses=(200, 206, 404, 409, 416)),

    get(gate.PATH, gate.gate_socket,
        "The way to Redis of a machine that has no login there: Redis' own protocol in binary messages, each command "
        "held against what this machine may ask", "machines", OPERATES, kind=Kind.WEBSOCKET, opens=Opens.MACHINE,
        statuses=(*SWITCHED, 403, 429)),

    get("/ws/monitor/{id}", ws_monitor.monitor_socket, "The events stream over WebSocket",
        "state", LOOKS, kind=Kind.WEBSOCKET, names=SOCKET, redis=False, statuses=SWITCHED),
    get("/ws/client/{id}", ws_client.client_socket, "Submit, watch and cancel jobs over WebSocket", "jobs", SUBMITS,
        kind=Kind.WEBSOCKET, names=SOCKET, redis=False, statuses=SWITCHED),
)  # fmt: skip

_ROLES = {(route.method, route.path): route.roles for route in ROUTES}


def roles_of(request: web.Request) -> frozenset[Role]:
    """Whose tokens open this. That a path is none, anybody may hear; what stands in no table, nobody gets but who may
    do everything.
    """
    resource = request.match_info.route.resource
    return ANY if resource is None else _ROLES.get((request.method, resource.canonical), OPERATES)
