"""`/metrics`: Prometheus text, read anew at each scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from emp_orch.api.context import Context, context
from emp_orch.api.views.fleet import State
from emp_orch.api.views.jobs import wait_s
from emp_orch.errors import EmpError
from emp_orch.store.queue.explain import LaneWorkers
from emp_orch.store.queue.reads import LaneView
from emp_orch.store.redis.client import TRANSIENT, time_ms

# Lanes told one by one; those after are summed, so that many lanes do not make many series.
MAX_LANES = 50
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: web.Request) -> web.Response:
    """`emp_redis_up 0` when the rest cannot be known."""
    ctx = context(request)
    found = list(_api(ctx))
    try:
        state, lanes = await asyncio.gather(ctx.reader.read(), _lanes(ctx))
        found += [_gauge("emp_redis_up", "Whether Redis answers.", 1), *_state(state), *lanes]
    except (*TRANSIENT, EmpError):
        found.append(_gauge("emp_redis_up", "Whether Redis answers.", 0))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(found))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})


class _Found(Collector):
    """What was read, as a registry takes it."""

    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value=value)


def _by(name: str, help_: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _api(ctx: Context) -> Iterator[Metric]:
    api = ctx.stats.view()
    yield _gauge("emp_api_uptime_seconds", "Since this API started.", api.uptime_s)
    gate = ctx.stats.gate_sockets
    clients = {"sse": api.sse_clients, "websocket": api.ws_clients - gate, "gate": gate}
    yield _by("emp_api_clients", "Open streams.", "kind", clients)
    yield CounterMetricFamily("emp_api_events", "Events passed on.", value=ctx.hub.seen)
    yield CounterMetricFamily("emp_api_resyncs", "Slow clients told anew.", value=ctx.hub.resyncs)
    yield CounterMetricFamily("emp_api_gate_refused", "Asked by boxes, and not theirs.", value=ctx.stats.gate_refused)
    yield CounterMetricFamily("emp_api_startup_events", "Heard by pub/sub.", value=ctx.startup.count)
    events = CounterMetricFamily("emp_api_job_events", "Events of jobs passed on, by type.", labels=["event"])
    for event, count in ctx.hub.job_events.items():
        events.add_metric([event], count)
    yield events


def _state(state: State) -> Iterator[Metric]:
    stats = state.system_stats
    yield _by("emp_machines", "Machines by status.", "status", stats.machines.by_status)
    yield _by("emp_workers", "Workers by status.", "status", stats.workers.by_status)
    if told := {p.name: p for p in state.pools if p.wanted is not None}:
        yield _by(
            "emp_pool_size", "Members there or asked for, of pools.", "pool", {n: p.there for n, p in told.items()}
        )
        yield _by("emp_pool_ready", "Of them, those that take jobs.", "pool", {n: p.ready for n, p in told.items()})
        yield _by("emp_pool_wanted", "Members wanted now.", "pool", {n: p.wanted or 0 for n, p in told.items()})
        yield _by("emp_pool_backlog", "Jobs that wait for it.", "pool", {n: p.waiting for n, p in told.items()})
        yield _by("emp_pool_running", "Jobs on its members.", "pool", {n: p.running for n, p in told.items()})
    yield _by("emp_jobs", "Jobs by status.", "status", state.jobs.counts)
    yield _gauge("emp_drift", "Differences between desired and observed.", stats.drift)
    yield _gauge("emp_generation", "The applied generation.", state.fleet.generation)
    yield _gauge("emp_reconciler_alive", "Whether it ticks.", int(stats.reconciler.alive))
    if stats.reconciler.age_s is not None:
        yield _gauge("emp_reconciler_age_seconds", "Since its last tick.", stats.reconciler.age_s)


async def _lanes(ctx: Context) -> list[Metric]:
    lanes, workers, now = await asyncio.gather(ctx.queue.lanes(), ctx.explainer.look(), time_ms(ctx.redis))
    told, rest = lanes[:MAX_LANES], lanes[MAX_LANES:]
    return list(_lane_metrics(told, rest, await ctx.explainer.serving(told, workers), now))


def _lane_metrics(
    told: Sequence[LaneView], rest: Sequence[LaneView], served: Mapping[str, LaneWorkers], now_ms: int
) -> Iterator[Metric]:
    labels = ["lane", "service"]
    jobs = GaugeMetricFamily("emp_lane_jobs", "Jobs that wait in a lane.", labels=labels)
    oldest = GaugeMetricFamily("emp_lane_oldest_wait_seconds", "How long its oldest job waits.", labels=labels)
    able = GaugeMetricFamily(
        "emp_lane_workers", "Workers that could serve it; silent: may, without a report.", labels=[*labels, "state"]
    )
    for lane in told:
        of = [lane.lane, lane.requirements.service]
        jobs.add_metric(of, lane.depth)
        oldest.add_metric(of, wait_s(lane, now_ms))
        workers = served[lane.lane]
        counts = {"idle": workers.idle, "busy": workers.busy, "down": workers.down, "silent": workers.silent}
        for state, count in counts.items():
            able.add_metric([*of, state], count)
    if rest:
        jobs.add_metric([OTHER, OTHER], sum(lane.depth for lane in rest))
        oldest.add_metric([OTHER, OTHER], max(wait_s(lane, now_ms) for lane in rest))
    every = (*told, *rest)
    yield from (jobs, oldest, able)
    yield _gauge("emp_lanes", "Lanes that hold jobs.", len(every))
    unworkable = sum(lane.unworkable is not None for lane in every)
    yield _gauge("emp_lanes_unworkable", "Of them, those that no worker of the fleet could serve.", unworkable)
