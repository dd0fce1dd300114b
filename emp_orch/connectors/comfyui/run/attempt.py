"""One try of a run: its ids and marks, and what is noted about it on the way."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emp_orch.connectors.base import Run, RunFailed
from emp_orch.connectors.comfyui.run.isolation import mark_of, marked, marks_in
from emp_orch.connectors.comfyui.server.protocol import File, Workflow
from emp_orch.connectors.outputs import once
from emp_orch.jobs.document.model import Output

MAX_NOTES = 20
MAX_NOTE_CHARS = 500
# Over the socket; what a run saves is bounded by the size of its record.
MAX_PICTURES = 1_000


class DoubtfulOutput(RunFailed):
    """What the service gives as this run's output is not, or may not be: another run may be more lucky."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


@dataclass(kw_only=True)
class Attempt:
    """`workflow` as the job says it, `prompt_id` ours, `client_id` who hears of it. `mentioned`: marks that stand in
    the job itself and tell nothing. `pictures` came over the socket; `notes` go into the result. `copied`: its own
    files, with their sizes.
    """

    run: Run
    workflow: Workflow
    prompt_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_id: str = ""
    mark: str = ""
    extra_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    pictures: list[Output] = field(default_factory=list)
    pictures_of: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    node_errors: dict[str, object] = field(default_factory=dict)
    cut: bool = False
    copied: list[tuple[File, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mark = self.mark or mark_of(self.prompt_id)
        self.mentioned = marks_in(self.run.job.payload)

    @property
    def sent(self) -> Workflow:
        """The workflow that the service is given."""
        return marked(self.workflow, self.mark)

    def note(self, text: str) -> None:
        text = text[:MAX_NOTE_CHARS]
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    async def take_picture(self, node_id: str, content_type: str, data: bytes) -> None:
        """Save a picture that a node sent over the socket; it is nowhere else."""
        if not data:
            raise DoubtfulOutput(f"node {node_id} sent a picture of 0 bytes")
        if len(self.pictures) >= MAX_PICTURES:
            raise RunFailed(f"node {node_id} sent more than {MAX_PICTURES} pictures", retryable=False)
        count = self.pictures_of[node_id] = self.pictures_of.get(node_id, 0) + 1
        name = f"{node_id}_{count:04}.{content_type.rpartition('/')[2]}"
        self.pictures.append(await self.run.save(name, content_type, once(data)))

    def class_of(self, node_id: str) -> str:
        node = self.workflow.get(node_id)
        return str(node.get("class_type", "")) if isinstance(node, dict) else ""

    @property
    def sends_pictures(self) -> bool:
        """Whether something of what it makes goes over the socket only."""
        return any(self.class_of(node_id) == SENDS_PICTURES for node_id in self.workflow)


SENDS_PICTURES = "SaveImageWebsocket"
