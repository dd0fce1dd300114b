"""What the handlers share: built once per process, in app.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from emp_orch.api.admission import ConcurrencyLimit
from emp_orch.api.ended_jobs import EndedJobs
from emp_orch.api.feed.hub import Hub
from emp_orch.api.feed.live import LiveState
from emp_orch.api.feed.preview_hub import PreviewHub
from emp_orch.api.feed.startup_channel import StartupChannel
from emp_orch.api.in_force import InForce
from emp_orch.api.known_members import KnownMembers
from emp_orch.api.state import ApiStats, StateReader
from emp_orch.layout import Layout
from emp_orch.settings import Settings
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.job_inputs import JobInputs
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.known_services import KnownServices
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined
from emp_orch.web.times import now_ms, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    settings: Settings
    layout: Layout
    redis: Client
    keys: Keys
    events: Events
    hub: Hub
    queue: Queue
    ended: EndedJobs
    line: Pipelined
    services: KnownServices
    explainer: Explainer
    artifacts: Artifacts
    assets: Assets
    inputs: JobInputs
    reader: StateReader
    live: LiveState
    previews: PreviewHub
    startup: StartupChannel
    stats: ApiStats
    downloads: ConcurrencyLimit
    uploads: ConcurrencyLimit
    in_force: InForce
    members: Members
    known_members: KnownMembers


CONTEXT = web.AppKey("context", Context)


def context(request: web.Request) -> Context:
    return request.app[CONTEXT]


def answer(data: Any, *, status: int = 200, **more: Any) -> web.Response:
    """`{"success": true, "data": …, "timestamp": …}`."""
    body = {"success": True, **more, "data": data, "timestamp": rfc3339(now_ms())}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
