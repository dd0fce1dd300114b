"""What is asked of a ComfyUI server about its queue: a run's record, its place, an end to it.

Source: ComfyUI's server.py and execution.py (https://github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui.server.protocol import Queued, QueueState, Record, refusal
from emp_orch.connectors.comfyui.server.session import POST_S, Session
from emp_orch.jobs.document.outputs import is_safe_id

MAX_CLIENT_ID = 200


class Held(Struct, frozen=True, kw_only=True):
    """A run in the server's queue. `client_id` hears its messages; empty where nobody does."""

    place: str
    client_id: str = ""


def _client_of(row: list[Any]) -> str:
    """Row of the queue: number, id, workflow, extra_data, output nodes."""
    extra = row[3] if len(row) > 3 else None
    client_id = extra.get("client_id") if isinstance(extra, dict) else None
    return client_id[:MAX_CLIENT_ID] if isinstance(client_id, str) else ""


class Server(Session):
    """The API of one server. Raises NETWORK errors, and MALFORMED where it speaks another language."""

    _cancels = True  # until it says that it knows no such path

    async def queue(self, body: Mapping[str, Any]) -> Queued:
        """Queue a workflow. Raises RunFailed in the service's words when it refuses."""
        status, text = await self.send("prompt", body)
        if status != 200:
            raise refusal(status, text)
        return msgspec.json.decode(text, type=Queued)

    async def record(self, prompt_id: str) -> Record | None:
        """What it keeps of a run that is over; None when it knows no end of it."""
        if not is_safe_id(prompt_id):
            return None  # what we send is; this one came by Redis, and would be another path
        return msgspec.json.decode(await self.get(f"history/{prompt_id}"), type=dict[str, Record]).get(prompt_id)

    async def held(self, prompt_id: str) -> Held | None:
        """Where it holds this run, and who hears of it; None when it does not."""
        queue = msgspec.json.decode(await self.get("queue"), type=QueueState)
        for name, rows in (("running", queue.queue_running), ("pending", queue.queue_pending)):
            for row in rows:
                if len(row) > 1 and row[1] == prompt_id:
                    return Held(place=name, client_id=_client_of(row))
        return None

    async def place(self, prompt_id: str) -> str:
        """`running`, `pending`, or '' when the service does not hold it."""
        held = await self.held(prompt_id)
        return held.place if held else ""

    async def still_there(self, prompt_id: str) -> None:
        """Raises RunFailed when it knows the run no more."""
        if not await self.place(prompt_id) and not await self.record(prompt_id):
            raise RunFailed(
                f"the service at {self.shown} lost the run: it was restarted or its queue cleared", retryable=True
            )

    async def end(self, prompt_id: str) -> bool:
        """Take a run out of the queue, or interrupt it when it is the one that runs. Whether it ran.

        Newer versions do both by one request, so that nothing can begin between two.
        """
        if self._cancels:
            status, _ = await self.send(f"api/jobs/{prompt_id}/cancel", {}, timeout_s=POST_S)
            if 200 <= status < 300:
                return await self.place(prompt_id) == "running"
            # 404 is also the answer for a run that it does not know; 405 that of a version that has no such path.
            self._cancels = status != HTTPStatus.METHOD_NOT_ALLOWED
        await self.post("queue", {"delete": [prompt_id]})
        # Older versions interrupt whatever runs, so look first.
        if await self.place(prompt_id) != "running":
            return False
        await self.post("interrupt", {"prompt_id": prompt_id})
        return True

    async def free(self, *, models: bool) -> None:
        """Have it forget the results it keeps for later runs, and with `models` what it holds in the GPU's memory.

        It does so between two runs. Versions to 0.8 give the models' memory up either way.
        """
        await self.post("free", {"unload_models": models, "free_memory": True})
