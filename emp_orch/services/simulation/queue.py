"""What waits, what runs and what ended: ComfyUI's prompt queue and its history, as values."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emp_orch.services.simulation.nodes.model import Prompt

# What ComfyUI keeps apart from a prompt's other extra data.
KEYS = ("auth_token_comfy_org", "api_key_comfy_org")
# The original keeps any number.
MAX_PENDING = 10_000


class QueueFull(Exception):
    """More prompts wait than the service keeps."""


@dataclass(kw_only=True)
class Entry:
    """One prompt and what became of it. `number` orders the queue: smaller is earlier.

    `secrets` are the keys of `extra_data` that are given to nodes and shown to nobody.
    """

    number: float
    prompt_id: str
    prompt: Prompt
    extra_data: dict[str, Any]
    outputs: list[str]
    secrets: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    messages: list[list[Any]] = field(default_factory=list)
    status: str = ""
    files: list[Path] = field(default_factory=list)

    @property
    def client_id(self) -> str | None:
        client = self.extra_data.get("client_id")
        return client if isinstance(client, str) else None

    def row(self) -> list[Any]:
        """As `/queue` shows it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]

    def history(self) -> dict[str, Any]:
        """As `/history` shows it."""
        status = {"status_str": self.status, "completed": self.status == "success", "messages": self.messages}
        meta = {
            node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            for node_id in self.results
        }
        return {"prompt": self.row(), "outputs": self.results, "status": status, "meta": meta}


class PromptQueue:
    """One prompt runs at a time; `keep` that ended are remembered, and the files of older ones removed with `tidy`."""

    def __init__(self, *, keep: int, tidy: bool) -> None:
        self.running: Entry | None = None
        self.pending: list[Entry] = []
        self.history: OrderedDict[str, Entry] = OrderedDict()
        self._keep = keep
        self._tidy = tidy

    @property
    def remaining(self) -> int:
        return len(self.pending) + (self.running is not None)

    def put(self, entry: Entry) -> None:
        """Raises QueueFull."""
        if len(self.pending) >= MAX_PENDING:
            raise QueueFull
        self.pending.append(entry)
        self.pending.sort(key=lambda e: e.number)

    def take(self) -> Entry | None:
        """The first that waits; it runs now."""
        if not self.pending:
            return None
        self.running = self.pending.pop(0)
        return self.running

    def delete(self, prompt_id: str) -> bool:
        """Drop the first that waits under this id. Nothing is recorded of it, as in ComfyUI."""
        for entry in self.pending:
            if entry.prompt_id == prompt_id:
                self.pending.remove(entry)
                return True
        return False

    def done(self, entry: Entry) -> None:
        """It ended: into the history, where it replaces an earlier one of its id."""
        self.running = None
        self.history.pop(entry.prompt_id, None)
        self.history[entry.prompt_id] = entry
        while len(self.history) > self._keep:
            _, old = self.history.popitem(last=False)
            if self._tidy:
                for path in old.files:  # only what this process drew: the folder stays bounded
                    path.unlink(missing_ok=True)

    def page(self, *, most: int | None, offset: int) -> dict[str, Any]:
        """`/history`: the oldest first; without an offset the last `most`."""
        entries = list(self.history.items())
        if offset < 0:
            offset = len(entries) - most if most is not None else 0
        chosen = entries[max(offset, 0) :]
        return {i: e.history() for i, e in (chosen if most is None else chosen[: max(most, 1)])}
