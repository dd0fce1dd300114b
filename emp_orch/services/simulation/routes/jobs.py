"""Jobs, as newer versions call prompts: one list of what waits, runs and ended, and one way to cancel."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from emp_orch.services.simulation.engine import Engine
from emp_orch.services.simulation.queue import Entry
from emp_orch.services.simulation.routes.answers import Table, body_of, ids_of, json, number_of

_ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Jobs:
    """The routes of jobs; none in versions that lack them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Table:
        """Without `/api`, where they are."""
        speaks = self._engine.config.speaks
        lists: Table = [("GET", "/jobs", self.list), ("GET", "/jobs/{job_id}", self.one)]
        cancels: Table = [("POST", "/jobs/cancel", self.cancel_all), ("POST", "/jobs/{job_id}/cancel", self.cancel)]
        return [*(lists if speaks.jobs else []), *(cancels if speaks.cancel else [])]

    def _all(self) -> list[dict[str, Any]]:
        queue = self._engine.queue
        running = [] if queue.running is None else [_waiting(queue.running, "in_progress")]
        ended = [_ended(entry) for entry in queue.history.values()]
        return [*running, *(_waiting(entry, "pending") for entry in queue.pending), *ended]

    async def list(self, request: web.Request) -> web.Response:
        limit, offset = number_of(request, "limit"), max(number_of(request, "offset") or 0, 0)
        if limit is not None and limit <= 0:
            return json({"error": "limit must be a positive integer"}, 400)
        wanted = [s.strip() for s in request.query.get("status", "").split(",") if s.strip()]
        found = [job for job in self._all() if not wanted or job["status"] in wanted]
        found.sort(key=lambda job: job.get("create_time", 0), reverse=request.query.get("sort_order") != "asc")
        page = found[offset:] if limit is None else found[offset : offset + limit]
        more = offset + len(page) < len(found)
        pagination = {"offset": offset, "limit": limit, "total": len(found), "has_more": more}
        return json({"jobs": page, "pagination": pagination})

    async def one(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        entry = self._engine.queue.history.get(job_id)
        if entry is not None:
            about = entry.history()
            return json({**_ended(entry), "outputs": about["outputs"], "execution_status": about["status"]})
        found = [job for job in self._all() if job["id"] == job_id]
        return json(found[0]) if found else json({"error": "Job not found"}, 404)

    async def cancel(self, request: web.Request) -> web.Response:
        return json({"cancelled": self._engine.cancel(request.match_info["job_id"])})

    async def cancel_all(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        if not isinstance(body.get("job_ids"), list):
            return json({"error": "job_ids must be a list"}, 400)
        cancelled = [self._engine.cancel(job_id) for job_id in ids_of(body["job_ids"])]
        return json({"cancelled": any(cancelled)})


def _waiting(entry: Entry, status: str) -> dict[str, Any]:
    created = entry.extra_data.get("create_time")
    found = {"id": entry.prompt_id, "status": status, "priority": entry.number, "outputs_count": 0}
    return found if created is None else {**found, "create_time": created}


def _ended(entry: Entry) -> dict[str, Any]:
    types = [type_ for type_, _ in entry.messages]
    status = "completed" if entry.status == "success" else "failed"
    if "execution_interrupted" in types:
        status = "cancelled"
    told = dict(entry.messages)
    found = {**_waiting(entry, status), "execution_start_time": told["execution_start"]["timestamp"]}
    for type_ in _ENDS:
        if type_ in told:
            found["execution_end_time"] = told[type_]["timestamp"]
    if "execution_error" in told:
        found["execution_error"] = told["execution_error"]
    files = [item for made in entry.results.values() for items in made.values() for item in items]
    return {**found, "outputs_count": len(files)}
