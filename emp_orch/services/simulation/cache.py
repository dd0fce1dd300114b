"""What nodes made in earlier prompts, by all that it depends on: ComfyUI's cache of outputs.

It holds what the last prompt's nodes made, and no more: a node that the next prompt lacks is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from emp_orch.services.simulation.config import Folders
from emp_orch.services.simulation.nodes import NODES
from emp_orch.services.simulation.nodes.model import Made, Prompt, link

Signatures = Mapping[str, str]


def signatures(prompt: Prompt, order: Iterable[str], folders: Folders) -> Signatures:
    """For each node of `order` (inputs first) a digest of its class, its inputs and theirs, up to the first.

    ComfyUI does not count what a node saves beside its inputs: a prompt's id, its client, its metadata.
    """
    found: dict[str, str] = {}
    for node_id in order:
        node = prompt[node_id]
        kind = NODES[node["class_type"]]
        given = [
            [name, [found.get(at[0], ""), at[1]] if (at := link(value)) else ["", value]]
            for name, value in sorted(node["inputs"].items())
        ]
        changed = kind.changed(node["inputs"], folders) if kind.changed is not None else ""
        text = msgspec.json.encode([node["class_type"], changed, given])
        found[node_id] = hashlib.sha256(text).hexdigest()
    return found


class OutputCache:
    """Made by signature. `off`: nothing is kept."""

    def __init__(self, *, off: bool = False) -> None:
        self._made: dict[str, Made] = {}
        self._off = off

    def begin(self, wanted: Signatures) -> None:
        """Forget what no node of the prompt that begins would ask for."""
        kept = set(wanted.values())
        self._made = {signature: made for signature, made in self._made.items() if signature in kept}

    def get(self, signature: str) -> Made | None:
        return self._made.get(signature)

    def put(self, signature: str, made: Made) -> None:
        if not self._off:
            self._made[signature] = made

    def clear(self) -> None:
        """As POST /free with free_memory."""
        self._made = {}


def order(prompt: Prompt, outputs: Iterable[str]) -> list[str]:
    """Node ids so that each comes after what it is linked to; those that `outputs` do not need are not in it.

    The prompt is valid for `outputs`: it has no rings.
    """
    done: dict[str, None] = {}
    for root in outputs:
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            node_id, leaving = stack.pop()
            if leaving:
                done[node_id] = None
            elif node_id not in done:
                stack.append((node_id, True))
                needs = [at[0] for value in prompt[node_id]["inputs"].values() if (at := link(value))]
                stack.extend((need, False) for need in reversed(needs) if need not in done)
    return list(done)


def current_inputs(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A node's inputs as an error repeats them: plain values as they are, others as text."""
    return {
        name: [value if value is None or isinstance(value, int | float | bool | str) else repr(value)[:200]]
        for name, value in given.items()
    }
