"""Works prompts off one at a time, as ComfyUI's prompt worker does: cache, nodes, interrupts, messages, flags."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from emp_orch.services.simulation.cache import OutputCache, Signatures, current_inputs, order, signatures
from emp_orch.services.simulation.config import Folders, SimulationConfig
from emp_orch.services.simulation.files import inside
from emp_orch.services.simulation.nodes import NODES
from emp_orch.services.simulation.nodes.model import Interrupted, Made, NodeFailed, Prompt, link
from emp_orch.services.simulation.queue import KEYS, Entry, PromptQueue
from emp_orch.services.simulation.sockets import Sockets
from emp_orch.services.simulation.validation import Valid

log = logging.getLogger("emp.simulate")


@dataclass
class Freed:
    """How often POST /free was heeded, for whoever looks at /health."""

    unload_models: int = 0
    free_memory: int = 0


@dataclass(kw_only=True)
class Progress:
    """A prompt under way."""

    entry: Entry
    wanted: Signatures
    values: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)


class Engine:
    """One prompt at a time, in the order of their numbers."""

    def __init__(self, config: SimulationConfig, sockets: Sockets) -> None:
        self.config = config
        self.queue = PromptQueue(keep=config.keep, tidy=config.tidy)
        self.freed = Freed()
        self._cache = OutputCache(off=not config.cache)
        self._sockets = sockets
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()
        self._flags: dict[str, bool] = {}
        # One for the process, as in ComfyUI: whichever node looks next takes it, and a prompt that begins clears it.
        self.interrupt = asyncio.Event()
        # The node that runs, for a client that connects anew.
        self.last_node_id: str | None = None
        self.client_id: str | None = None

    # what clients ask for

    def submit(self, prompt_id: str, checked: Valid, extra_data: dict[str, Any], **at: Any) -> Entry:
        """Queue a validated prompt. `at`: `number`, or `front`. Raises QueueFull."""
        number = at.get("number")
        if number is None:
            number = next(self._numbers)
            number = -number if at.get("front") else number
        secrets: dict[str, Any] = at.get("secrets", {})
        entry = Entry(
            number=number,
            prompt_id=prompt_id,
            prompt=checked.prompt,
            extra_data=extra_data,
            outputs=checked.outputs,
            secrets=secrets,
        )
        self.queue.put(entry)
        self._arrived.set()
        self.tell_status()
        return entry

    def delete(self, prompt_ids: Sequence[str]) -> None:
        for prompt_id in prompt_ids:
            if self.queue.delete(prompt_id):
                self.tell_status()

    def clear(self) -> None:
        self.queue.pending.clear()
        self.tell_status()

    def cancel(self, prompt_id: str) -> bool:
        """Out of the queue, or interrupted when it runs. False: there was nothing to do."""
        if self.queue.running is not None and self.queue.running.prompt_id == prompt_id:
            self.interrupt.set()
            return True
        if self.queue.delete(prompt_id):
            self.tell_status()
            return True
        return False

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Heeded by the worker once it is between two prompts."""
        if unload_models:
            self._flags["unload_models"] = True
        if free_memory:
            self._flags["free_memory"] = True
        self._arrived.set()

    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def tell_status(self) -> None:
        self._sockets.send("status", {"status": self.status()}, None)

    # execution

    async def run(self) -> None:
        """Work for ever."""
        while True:
            while not self.queue.pending and not self._flags:
                self._arrived.clear()
                await self._arrived.wait()
            if (entry := self.queue.take()) is not None:
                self.tell_status()
                await self._one(entry)
            self._heed_flags()

    async def _one(self, entry: Entry) -> None:
        started = time.monotonic()
        try:
            await self._execute(entry)
        finally:
            self.last_node_id = None
            if self.config.speaks.forgets_keys:
                entry.extra_data = {key: value for key, value in entry.extra_data.items() if key not in KEYS}
            self.queue.done(entry)
        self.tell_status()
        if entry.client_id is not None:
            self._sockets.send("executing", {"node": None, "prompt_id": entry.prompt_id}, entry.client_id)
        log.info("Prompt executed in %.2f seconds (%s: %s)", time.monotonic() - started, entry.prompt_id, entry.status)

    def _heed_flags(self) -> None:
        flags, self._flags = self._flags, {}
        free_memory = flags.get("free_memory", False)
        if flags.get("unload_models", free_memory):
            self.freed.unload_models += 1
        if free_memory:
            self.freed.free_memory += 1
            self._cache.clear()

    def _message(self, entry: Entry, type_: str, *, to_all: bool = False, **data: Any) -> None:
        data = {"prompt_id": entry.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        entry.messages.append([type_, data])
        if entry.client_id is not None or to_all:
            self._sockets.send(type_, data, entry.client_id)

    async def _execute(self, entry: Entry) -> None:
        self.interrupt.clear()
        self.client_id = entry.client_id
        self._message(entry, "execution_start")
        steps = order(entry.prompt, entry.outputs)
        under_way = Progress(entry=entry, wanted=signatures(entry.prompt, steps, self.config.folders))
        self._cache.begin(under_way.wanted)
        cached = [i for i in entry.prompt if i in under_way.wanted and self._cache.get(under_way.wanted[i]) is not None]
        self._message(entry, "execution_cached", nodes=cached)
        node_id = ""
        try:
            for node_id in _needed(steps, entry, set(cached)):
                await self._node(under_way, node_id)
        except Interrupted:
            entry.status = "error"
            where = {"node_id": node_id, "node_type": entry.prompt[node_id]["class_type"]}
            self._message(entry, "execution_interrupted", to_all=True, **where, executed=under_way.executed)
        except Exception as e:  # noqa: BLE001  # as ComfyUI: whatever a node raises is its prompt's failure, no more
            entry.status = "error"
            self._message(entry, "execution_error", **_error(under_way, node_id, e))
        else:
            entry.status = "success"
            self._message(entry, "execution_success")

    async def _node(self, under_way: Progress, node_id: str) -> None:
        entry, signature = under_way.entry, under_way.wanted[node_id]
        about = {"node": node_id, "display_node": node_id, "prompt_id": entry.prompt_id}
        made = self._cache.get(signature)
        if made is not None:
            if entry.client_id is not None:
                self._sockets.send("executed", {**about, "output": made.ui}, entry.client_id)
        else:
            at = Moment(engine=self, under_way=under_way, node_id=node_id)
            at.state("running", 0, 1)
            if entry.client_id is not None:
                self.last_node_id = node_id
                self._sockets.send("executing", about, entry.client_id)
            made = await self._run(at)
            if made.ui is not None and entry.client_id is not None:
                self._sockets.send("executed", {**about, "output": made.ui}, entry.client_id)
            self._cache.put(signature, made)
            at.state("finished", 1, 1)
            under_way.executed.append(node_id)
        under_way.values[node_id] = made.values
        if made.ui is not None:
            entry.results[node_id] = made.ui

    async def _run(self, at: Moment) -> Made:
        at.check()
        node = at.under_way.entry.prompt[at.node_id]
        kind = NODES[node["class_type"]]
        return await kind.run(_given(at.under_way, at.node_id), at)

    def tell(self, type_: str, data: dict[str, Any], entry: Entry) -> None:
        self._sockets.send(type_, data, entry.client_id)

    def show(self, picture: bytes, node_id: str, entry: Entry) -> None:
        metadata = {
            "node_id": node_id,
            "prompt_id": entry.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self._sockets.show(picture, metadata, entry.client_id)


def _needed(steps: list[str], entry: Entry, cached: set[str]) -> Iterator[str]:
    """The nodes to run for the outputs: what only cached ones need is not looked at."""
    wanted: set[str] = set()
    for node_id in reversed(steps):
        if node_id in entry.outputs or node_id in wanted:
            wanted.add(node_id)
            if node_id not in cached:
                wanted |= {at[0] for value in entry.prompt[node_id]["inputs"].values() if (at := link(value))}
    return (node_id for node_id in steps if node_id in wanted)


def _given(under_way: Progress, node_id: str) -> dict[str, Any]:
    """The inputs of a node, with what the nodes before it made."""
    inputs = under_way.entry.prompt[node_id]["inputs"]
    return {name: under_way.values[at[0]][at[1]] if (at := link(value)) else value for name, value in inputs.items()}


def _error(under_way: Progress, node_id: str, e: Exception) -> dict[str, Any]:
    """ComfyUI's account of a node's failure; it puts a line for advice behind the message, mostly an empty one."""
    kind = e.kind if isinstance(e, NodeFailed) else type(e).__name__
    advice = "" if "\nTIPS: " in str(e) else "\n"
    return {
        "node_id": node_id,
        "node_type": under_way.entry.prompt[node_id]["class_type"],
        "executed": under_way.executed,
        "exception_message": f"{e}{advice}",
        "exception_type": kind,
        "traceback": traceback.format_tb(e.__traceback__),
        "current_inputs": current_inputs(under_way.entry.prompt[node_id]["inputs"]),
        "current_outputs": list(under_way.values),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a node runs: `nodes.model.At`."""

    engine: Engine
    under_way: Progress
    node_id: str

    @property
    def folders(self) -> Folders:
        return self.engine.config.folders

    @property
    def prompt(self) -> Prompt:
        return self.under_way.entry.prompt

    @property
    def extra_data(self) -> dict[str, Any]:
        return {**self.under_way.entry.extra_data, **self.under_way.entry.secrets}

    @property
    def previews(self) -> bool:
        method = self.under_way.entry.extra_data.get("preview_method") if self._may_choose else None
        chosen = method if method in ("none", "auto", "latent2rgb", "taesd") else self.engine.config.preview_method
        return chosen != "none"

    @property
    def _may_choose(self) -> bool:
        return self.engine.config.speaks.preview_method

    def check(self) -> None:
        if self.engine.interrupt.is_set():
            self.engine.interrupt.clear()
            raise Interrupted

    async def sleep(self, seconds: float, *, interruptible: bool = True) -> None:
        if not interruptible:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.engine.interrupt.wait()
        self.check()

    async def step(self) -> None:
        await self.sleep(self.engine.config.step_s)

    def steps(self, asked: int) -> Iterator[tuple[int, int]]:
        """`--steps` caps them, so that a stand-in answers soon whatever a workflow asks for."""
        most = min(asked, self.engine.config.steps)
        return ((step, most) for step in range(1, most + 1))

    def progress(self, value: int, most: int, picture: bytes | None = None) -> None:
        self.check()
        entry = self.under_way.entry
        self.state("running", value, most)
        data = {"value": value, "max": most, "prompt_id": entry.prompt_id, "node": self.node_id}
        self.engine.tell("progress", data, entry)
        if picture is not None:
            self.engine.show(picture, self.node_id, entry)

    def state(self, state: str, value: float, most: float) -> None:
        """Tell how far each node is, as versions with feature flags do."""
        if not self.engine.config.speaks.feature_flags:
            return
        entry, states = self.under_way.entry, self.under_way.states
        states[self.node_id] = {
            "value": value,
            "max": most,
            "state": state,
            "node_id": self.node_id,
            "prompt_id": entry.prompt_id,
            "display_node_id": self.node_id,
            "parent_node_id": None,
            "real_node_id": self.node_id,
        }
        self.engine.tell("progress_state", {"prompt_id": entry.prompt_id, "nodes": dict(states)}, entry)

    def made(self, kind: str, names: Sequence[str], subfolder: str) -> None:
        folder = self.folders.of(kind)
        if folder is not None:
            paths = (inside(folder, f"{subfolder or '.'}/{name}") for name in names)
            self.under_way.entry.files += [path for path in paths if path is not None]
