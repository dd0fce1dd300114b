"""The API process: builds what the handlers share, serves, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from aiohttp import web
from redis.exceptions import ResponseError

from emp_orch import __version__, again
from emp_orch.api.admission import DOWNLOADS, UPLOADS, UPLOADS_OF_ONE, ConcurrencyLimit
from emp_orch.api.context import CONTEXT, Context
from emp_orch.api.duplicate_boxes import Boxes
from emp_orch.api.ended_jobs import EndedJobs
from emp_orch.api.feed.changes import Follower
from emp_orch.api.feed.hub import Hub
from emp_orch.api.feed.live import LiveState
from emp_orch.api.feed.preview_hub import PreviewHub
from emp_orch.api.feed.startup_channel import StartupChannel
from emp_orch.api.gate.socket import GATE, Gate
from emp_orch.api.handlers.job_submit import MAX_LIST_BYTES
from emp_orch.api.handlers.join import BOXES, is_members
from emp_orch.api.handlers.packages import package
from emp_orch.api.in_force import InForce
from emp_orch.api.joining.answers import PACKAGES_PATH
from emp_orch.api.joining.limits import limit
from emp_orch.api.joining.rights import renew_rights
from emp_orch.api.known_members import KnownMembers
from emp_orch.api.machine_token import is_machines
from emp_orch.api.routes import ROUTES, WORK, roles_of
from emp_orch.api.state import ApiStats, StateReader
from emp_orch.api.views.openapi import DOCUMENT, encoded
from emp_orch.api.views.query import only_known
from emp_orch.api.views.route import Handler, Kind, Route
from emp_orch.errors import Damaged, EmpError
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import Settings
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.job_inputs import JobInputs
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.known_services import KnownServices
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import API_CONNECTIONS, TRANSIENT, Client, client, redacted, unreachable, within
from emp_orch.store.redis.damaged import REPAIR, KeyDamaged
from emp_orch.store.redis.key_errors import is_damage
from emp_orch.store.redis.keys import PROBE_MS, Keys
from emp_orch.store.redis.pipelined import Pipelined
from emp_orch.store.redis.refusals import refusal_of
from emp_orch.web.callers import callers
from emp_orch.web.errors import errors_as_json
from emp_orch.web.guard import GUARD, Guard, guarded, is_loopback, local_origins, require_token
from emp_orch.web.serve import listening, until_told_to_stop

log = logging.getLogger(__name__)

PRIMARY_EVERY_S = 5.0


def build_context(settings: Settings, layout: Layout, redis: Client) -> Context:
    keys = Keys(settings.prefix)
    events = Events(redis, keys)

    async def forget_dead_connections() -> None:
        # Each idle one would fail once more, at somebody's request.
        await redis.connection_pool.disconnect(inuse_connections=False)

    hub = Hub(events, forget_dead_connections)
    stats = ApiStats()
    line = Pipelined(redis)

    async def call(*args: Any) -> Any:
        async with within():
            return await line.call(*args)

    async def calls(*commands: Sequence[Any]) -> list[Any]:
        async with within():
            return await line.calls(*commands)

    queue = Queue(redis, keys, call, calls, replicas=settings.replicas)
    artifacts = Artifacts(settings.artifacts)
    assets = Assets(artifacts, redis, keys)
    key = SigningKey(layout, settings.fleet)
    reader = StateReader(redis, keys, settings.fleet, queue, stats, key.known)
    members = Members(redis, keys, settings.fleet, key.control)
    return Context(
        settings=settings,
        layout=layout,
        redis=redis,
        keys=keys,
        events=events,
        hub=hub,
        queue=queue,
        line=line,
        services=KnownServices(redis, keys, settings.fleet),
        explainer=Explainer(redis, keys, settings.fleet),
        artifacts=artifacts,
        assets=assets,
        inputs=JobInputs(assets, settings.inputs),
        reader=reader,
        live=LiveState(hub, Follower(redis, keys, reader, hub.jobs_changed)),
        previews=PreviewHub(redis, keys),
        startup=StartupChannel(redis, keys),
        stats=stats,
        ended=EndedJobs(),
        downloads=ConcurrencyLimit(DOWNLOADS, "downloads"),
        uploads=ConcurrencyLimit(UPLOADS, "uploads", each=UPLOADS_OF_ONE),
        in_force=InForce(redis, keys, settings.fleet, key.control),
        members=members,
        known_members=KnownMembers(members),
    )


def _answering(route: Route) -> Handler:
    """What reads Redis is a 503 when Redis says nothing: frozen, it neither answers nor hangs up."""
    if route.method != "GET" or route.kind not in (Kind.JSON, Kind.TEXT):
        return route.handler

    names = [p.name for p in route.query]

    async def in_time(request: web.Request) -> web.StreamResponse:
        if names:
            only_known(request, names)
        async with within():
            return await route.handler(request)

    return in_time


def _away(settings: Settings, e: BaseException) -> str | EmpError:
    if isinstance(e, ResponseError) and is_damage(e):
        words = e.words if isinstance(e, KeyDamaged) else KeyDamaged("", str(e)).words
        return Damaged(f"{words}; {REPAIR}")
    found = unreachable(settings.redis_url, e)
    return f"{found.message}; {found.hint}"


def _is_open(request: web.Request) -> bool:
    """Whether this request needs no token of the API's."""
    return request.path == "/health" or (request.path == GATE_PATH and is_machines(request)) or is_members(request)


def build_app(ctx: Context) -> web.Application:
    settings = ctx.settings
    guard = Guard(
        loopback=is_loopback(settings.api.host),
        token=settings.api.token,
        origins=local_origins(settings.api.port, settings.monitor.port) | {settings.monitor.url},
        is_open=_is_open,
        callers=callers(settings.api.tokens),
        roles=roles_of,
    )
    app = web.Application(
        client_max_size=MAX_LIST_BYTES,
        middlewares=[errors_as_json(TRANSIENT, partial(_away, settings)), guarded(guard)],
    )
    app[CONTEXT] = ctx
    app[GUARD] = guard
    limit(app)
    app[BOXES] = Boxes()
    app[GATE] = Gate(ctx)
    app[DOCUMENT] = encoded(ROUTES, token=settings.api.token is not None)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _answering(route))
    return app


def build_door(ctx: Context) -> web.Application:
    """All that machines in containers of this host need of the API: their worker packages, and the files of their runs
    where they do not see the store. Each has its own token.
    """
    settings = ctx.settings
    guard = Guard(
        loopback=False, token=secrets.token_urlsafe(), origins=frozenset(), is_open=is_members
    )  # nobody knows the token
    app = web.Application(middlewares=[errors_as_json(TRANSIENT, partial(_away, settings)), guarded(guard)])
    app[CONTEXT] = ctx
    app.router.add_get(f"{PACKAGES_PATH}/{{digest}}", package)
    for route in ROUTES:
        if route.tag == WORK:
            app.router.add_route(route.method, route.path, route.handler)
    return app


async def stay_on_the_primary(redis: Client, keys: Keys, note: Callable[[str], None]) -> None:
    """Write, now and then, what changes nothing: the API mostly listens, and on a former primary it would hear nothing
    more. What refuses a write has all connections of this process left (store/redis/pool). `note` is told why it is
    refused; nothing, when it is not.
    """
    while True:
        refuses = ""
        try:
            async with within():
                await redis.set(keys.probe, "", px=PROBE_MS)
        except TRANSIENT as e:
            found = refusal_of(e)
            refuses = found.words if found else ""
        note(refuses)
        await asyncio.sleep(PRIMARY_EVERY_S)


def parts_of(ctx: Context) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
    """What runs beside the requests, by name."""
    return [
        ("follow events", ctx.hub.run),
        ("live state", ctx.live.run),
        ("stay on the primary", partial(stay_on_the_primary, ctx.redis, ctx.keys, ctx.reader.note)),
        ("startup channel", ctx.startup.run),
        ("rights of joined boxes", partial(renew_rights, ctx)),
    ]


async def run(layout: Layout, settings: Settings) -> None:
    """Serve until SIGTERM. Raises UsageError without a token beyond loopback, EmpError when the port is taken."""
    listen = settings.api
    require_token("api", listen.host, listen.token)
    redis = client(
        settings.redis_url,
        owner=settings.redis_owner,
        most=API_CONNECTIONS - 1,  # who follows the events has one of its own
        name=f"emp:api:{settings.fleet}",
        tolerant=True,
    )
    ctx = build_context(settings, layout, redis)
    try:
        async with AsyncExitStack() as open_:
            await open_.enter_async_context(listening(build_app(ctx), what="api", host=listen.host, port=listen.port))
            for address in settings.door:
                door = listening(build_door(ctx), what="api", host=address, port=listen.port, soon=True)
                await open_.enter_async_context(door)
            log.info(
                "emp API %s on %s: fleet %s, Redis %s",
                __version__,
                listen.url,
                settings.fleet,
                redacted(settings.redis_url),
            )
            async with asyncio.TaskGroup() as tasks:
                owned = [tasks.create_task(again.for_ever(part, what, log), name=what) for what, part in parts_of(ctx)]
                await until_told_to_stop()
                log.info("stopping")
                ctx.hub.close()
                for task in owned:
                    task.cancel()
    finally:
        await ctx.previews.aclose()
        await ctx.line.aclose()
        await redis.aclose()
