"""What a node class is: its inputs as /object_info shows them, and what it does when it runs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from emp_orch.services.simulation.config import Folders

# A prompt as a client sends it: node id → {"class_type": …, "inputs": {…}}.
Prompt = dict[str, dict[str, Any]]
Given = Mapping[str, Any]


class Interrupted(Exception):
    """The prompt was interrupted by a client."""


class NodeFailed(Exception):
    """A node failed. `kind` is the name of the exception that the original raises there."""

    def __init__(self, message: str, *, kind: str = "RuntimeError") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input. `choices` lists what a combo offers now; None from it takes any text."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    choices: Callable[[Folders], Sequence[str] | None] | None = None

    def shown(self, folders: Folders) -> tuple[str | list[str], dict[str, Any]]:
        """Its type and options, or its choices and options."""
        offered = self.choices(folders) if self.choices is not None else None
        return (self.kind if offered is None else list(offered)), self.options


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a run of a node made: values for the nodes behind it, and what the client is told."""

    values: tuple[Any, ...] = ()
    ui: dict[str, Any] | None = None


class At(Protocol):
    """Where a node runs."""

    @property
    def folders(self) -> Folders: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def extra_data(self) -> dict[str, Any]: ...
    @property
    def node_id(self) -> str: ...
    @property
    def previews(self) -> bool:
        """Whether a sampler shows how far its picture is."""

    def steps(self, asked: int) -> Iterator[tuple[int, int]]:
        """The steps of a sampler that is asked for so many, each with their number: the service may cap it."""

    async def step(self) -> None:
        """One step of a sampler. Raises Interrupted as `check` does."""

    def check(self) -> None:
        """Raises Interrupted when a client asked for it. A node that never calls this ignores interrupts."""

    async def sleep(self, seconds: float, *, interruptible: bool = True) -> None:
        """Raises Interrupted as `check` does."""

    def progress(self, value: int, most: int, picture: bytes | None = None) -> None:
        """Tell the client, with a PNG to show when there is one. Raises Interrupted as `check` does."""

    def made(self, kind: str, names: Sequence[str], subfolder: str) -> None:
        """Remember files that this run wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """`changed` says in what a node differs from an earlier run of the same inputs (ComfyUI's IS_CHANGED).

    `valid` is ComfyUI's VALIDATE_INPUTS: words when the inputs do not fit.
    """

    inputs: Mapping[str, Input]
    returns: tuple[str, ...]
    category: str
    display: str
    run: Callable[[Given, At], Awaitable[Made]]
    is_output: bool = False
    module: str = "nodes"
    changed: Callable[[Given, Folders], str] | None = None
    valid: Callable[[Given, Folders], str | None] | None = None
    # Inputs that `valid` looks at, so that choices do not.
    valid_inputs: frozenset[str] = frozenset()


def object_info(name: str, node: NodeType, folders: Folders) -> dict[str, Any]:
    """The node class as /object_info shows it."""

    def fields(*, optional: bool) -> dict[str, list[Any]]:
        chosen = {key: spec.shown(folders) for key, spec in node.inputs.items() if spec.optional == optional}
        return {key: [kind, *([options] if options else [])] for key, (kind, options) in chosen.items()}

    given = {"required": fields(optional=False)}
    if any(spec.optional for spec in node.inputs.values()):
        given["optional"] = fields(optional=True)
    return {
        "input": given,
        "input_order": {key: list(value) for key, value in given.items()},
        "output": list(node.returns),
        "output_is_list": [False] * len(node.returns),
        "output_name": list(node.returns),
        "name": name,
        "display_name": node.display,
        "description": "",
        "python_module": node.module,
        "category": node.category,
        "output_node": node.is_output,
    }


def link(value: object) -> tuple[str, int] | None:
    """The (node id, output index) that an input refers to, or None when it is a plain value."""
    match value:
        case [str(source), int(index)] if not isinstance(index, bool):
            return source, index
        case _:
            return None


def always_anew(_: Given, __: Folders) -> str:
    """For a node that no cache answers for: differs each time."""
    return repr(time.time())
