"""Prompts: queue them, look at the queue and the history, interrupt, free memory."""

from __future__ import annotations

import logging
import math
import re
import time
import uuid
from typing import Any

from aiohttp import web

from emp_orch.services.simulation.engine import Engine
from emp_orch.services.simulation.queue import KEYS, QueueFull
from emp_orch.services.simulation.routes.answers import Table, body_of, ids_of, json, number_of
from emp_orch.services.simulation.validation import Invalid, problem, validate
from emp_orch.services.simulation.versions import PromptIds

log = logging.getLogger("emp.simulate")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class BadId(ValueError):
    """A prompt id that this version does not take."""


class Prompts:
    """The routes of prompts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._speaks = engine.config.speaks

    def table(self) -> Table:
        return [
            ("GET", "/prompt", self.get_prompt),
            ("POST", "/prompt", self.post_prompt),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("GET", "/history", self.get_history),
            ("POST", "/history", self.post_history),
            ("GET", "/history/{prompt_id}", self.get_one),
            ("POST", "/interrupt", self.interrupt),
            ("POST", "/free", self.free),
        ]

    async def get_prompt(self, _: web.Request) -> web.Response:
        return json(self._engine.status())

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        if "prompt" not in body:
            error = problem("no_prompt", "No prompt provided", "No prompt provided")
            return json({"error": error, "node_errors": {}}, 400)
        try:
            prompt_id = self._prompt_id(body.get("prompt_id"))
        except BadId as e:
            error = problem("invalid_prompt_id", "prompt_id must be a valid UUID", str(e))
            return json({"error": error, "node_errors": {}}, 400)
        if (malformed := _shape(body["prompt"])) is not None:
            return json({"error": malformed, "node_errors": {}}, 400)
        checked = validate(
            body["prompt"],
            self._engine.config.folders,
            only=body.get("partial_execution_targets"),
            names_missing_nodes=self._speaks.names_missing_nodes,
        )
        if isinstance(checked, Invalid):
            log.warning("invalid prompt: %s", checked.error["message"])
            return json({"error": checked.error, "node_errors": checked.node_errors}, 400)
        extra_data, secrets = self._extra_data(body)
        try:
            entry = self._engine.submit(
                prompt_id, checked, extra_data, number=_number(body), front=bool(body.get("front")), secrets=secrets
            )
        except QueueFull:
            error = problem("queue_full", "The queue is full", "try again later")
            return json({"error": error, "node_errors": {}}, 503)
        return json({"prompt_id": prompt_id, "number": entry.number, "node_errors": checked.node_errors})

    def _prompt_id(self, asked: object) -> str:
        if asked is None or self._speaks.prompt_ids is PromptIds.SERVER:
            return str(uuid.uuid4())
        if self._speaks.prompt_ids is PromptIds.ANY:
            return str(asked)
        if not isinstance(asked, str) or not _UUID.fullmatch(asked):
            raise BadId("prompt_id must be a UUID string in canonical lowercase hyphenated form")
        return asked

    def _extra_data(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the client gave beside the prompt, and what of it is shown to nobody."""
        extra = body.get("extra_data")
        extra_data = dict(extra) if isinstance(extra, dict) else {}
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if not self._speaks.hides_keys:
            return extra_data, {}
        secrets = {key: extra_data.pop(key) for key in KEYS if key in extra_data}
        extra_data["create_time"] = int(time.time() * 1000)
        return extra_data, secrets

    async def get_queue(self, _: web.Request) -> web.Response:
        queue = self._engine.queue
        running = [queue.running.row()] if queue.running else []
        return json({"queue_running": running, "queue_pending": [e.row() for e in queue.pending]})

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        if body.get("clear"):
            self._engine.clear()
        self._engine.delete(ids_of(body.get("delete")))
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        most, offset = number_of(request, "max_items"), number_of(request, "offset")
        return json(self._engine.queue.page(most=most, offset=-1 if offset is None else offset))

    async def get_one(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = self._engine.queue.history.get(prompt_id)
        return json({prompt_id: entry.history()} if entry is not None else {})

    async def post_history(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        history = self._engine.queue.history
        if body.get("clear"):
            history.clear()
        for prompt_id in ids_of(body.get("delete")):
            history.pop(prompt_id, None)
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        body = await body_of(request) if request.can_read_body else {}
        prompt_id = body.get("prompt_id") if self._speaks.targeted_interrupt else None
        running = self._engine.queue.running
        if not prompt_id or (running is not None and running.prompt_id == prompt_id):
            self._engine.interrupt.set()
        return web.Response()

    async def free(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        self._engine.free(unload_models=bool(body.get("unload_models")), free_memory=bool(body.get("free_memory")))
        return web.Response()


def _number(body: dict[str, Any]) -> float | None:
    """The place in the queue that the client asks for."""
    try:
        number = float(body["number"]) if "number" in body else None
    except (TypeError, ValueError, OverflowError) as e:
        raise web.HTTPBadRequest(text="number must be a number") from e
    if number is not None and not math.isfinite(number):
        raise web.HTTPBadRequest(text="number must be finite")
    return number


def _shape(prompt: object) -> dict[str, Any] | None:
    """What is wrong with a prompt that is no object of objects. ComfyUI answers 500 there."""
    if not isinstance(prompt, dict):
        details = f"a prompt is an object of nodes, this is {type(prompt).__name__}"
        return problem("invalid_prompt", "Prompt is not an object of nodes", details)
    for node_id, node in prompt.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str | None):
            return problem("invalid_prompt", "Prompt is not an object of nodes", f"Node ID '#{node_id}'")
    return None
