"""Works prompts off one at a time, as ComfyUI does: queue, execution, messages, bounded history."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emp_orch.services import nodes, png

log = logging.getLogger("emp.simulate")

MAX_HISTORY = 500
MAX_PENDING = 10_000

# (message type, its data, the client it is for or None for all)
Send = Callable[[str, dict[str, Any], str | None], None]


class QueueFull(Exception):
    """More prompts wait than the service keeps."""


class _Interrupted(Exception):
    """The prompt was interrupted by a client."""


class _NodeFailed(Exception):
    """A node raised while it ran."""


@dataclass(kw_only=True)
class Entry:
    """One prompt and what became of it. `number` orders the queue: smaller is earlier."""

    number: float
    prompt_id: str
    prompt: nodes.Prompt
    extra_data: dict[str, Any]
    outputs: list[str]
    interrupt: asyncio.Event = field(default_factory=asyncio.Event)
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
        status = {"status_str": self.status, "completed": self.status == "success", "messages": self.messages}
        return {"prompt": self.row(), "outputs": self.results, "status": status, "meta": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Latent:
    width: int
    height: int
    batch: int
    seed: int = 0
    text: str = ""


class Engine:
    """One prompt at a time; pictures go into `folder`/output and `folder`/temp."""

    def __init__(self, folder: Path, *, steps: int, step_s: float, send: Send) -> None:
        self.folder = folder
        self.running: Entry | None = None
        self.pending: list[Entry] = []
        self.history: OrderedDict[str, Entry] = OrderedDict()
        self._steps = steps
        self._step_s = step_s
        self._send = send
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()

    # queue

    @property
    def remaining(self) -> int:
        return len(self.pending) + (self.running is not None)

    def submit(
        self, prompt_id: str, prompt: nodes.Prompt, outputs: list[str], extra_data: dict[str, Any], *, front: bool
    ) -> Entry:
        """Queue a validated prompt. Raises QueueFull."""
        if len(self.pending) >= MAX_PENDING:
            raise QueueFull
        count = next(self._numbers)
        number = float(-count if front else count)
        entry = Entry(number=number, prompt_id=prompt_id, prompt=prompt, extra_data=extra_data, outputs=outputs)
        self.pending.append(entry)
        self.pending.sort(key=lambda e: e.number)
        self._arrived.set()
        self._tell_status()
        return entry

    def delete(self, prompt_ids: set[str] | None) -> None:
        """Drop waiting prompts: those named, or all. Nothing is recorded of them, as in ComfyUI."""
        self.pending = [] if prompt_ids is None else [e for e in self.pending if e.prompt_id not in prompt_ids]
        self._tell_status()

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop the running prompt; with an id, only when it is that one."""
        if self.running is not None and prompt_id in (None, self.running.prompt_id):
            self.running.interrupt.set()

    def forget(self, prompt_ids: set[str] | None) -> None:
        """Drop history: the entries named, or all. Their pictures stay."""
        for prompt_id in list(self.history) if prompt_ids is None else prompt_ids:
            self.history.pop(prompt_id, None)

    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.remaining}}

    def _tell_status(self) -> None:
        self._send("status", {"status": self.status()}, None)

    # execution

    async def run(self) -> None:
        """Work for ever."""
        while True:
            while not self.pending:
                self._arrived.clear()
                await self._arrived.wait()
            entry = self.running = self.pending.pop(0)
            started = time.monotonic()
            try:
                await self._execute(entry)
            finally:
                self.running = None
            self._remember(entry)
            self._send("executing", {"node": None, "prompt_id": entry.prompt_id}, entry.client_id)
            self._tell_status()
            log.info("prompt %s %s in %.2f s", entry.prompt_id, entry.status, time.monotonic() - started)

    def _remember(self, entry: Entry) -> None:
        self.history[entry.prompt_id] = entry
        while len(self.history) > MAX_HISTORY:
            _, old = self.history.popitem(last=False)
            for path in old.files:  # only what this process drew: the folder stays bounded
                path.unlink(missing_ok=True)

    def _message(self, entry: Entry, type_: str, **data: Any) -> None:
        data = {"prompt_id": entry.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        entry.messages.append([type_, data])
        self._send(type_, data, entry.client_id)

    async def _execute(self, entry: Entry) -> None:
        self._message(entry, "execution_start")
        self._message(entry, "execution_cached", nodes=[])
        values: dict[str, tuple[Any, ...]] = {}
        executed: list[str] = []
        node_id = ""
        try:
            for node_id in nodes.order(entry.prompt, entry.outputs) or []:
                about = {"node": node_id, "display_node": node_id, "prompt_id": entry.prompt_id}
                self._send("executing", about, entry.client_id)
                values[node_id] = await self._run_node(entry, node_id, values)
                executed.append(node_id)
                if node_id in entry.results:
                    self._send("executed", {**about, "output": entry.results[node_id]}, entry.client_id)
        except _Interrupted:
            entry.status = "error"
            where = {"node_id": node_id, "node_type": entry.prompt[node_id]["class_type"], "executed": executed}
            self._message(entry, "execution_interrupted", **where)
        except (_NodeFailed, OSError) as e:
            entry.status = "error"
            self._message(entry, "execution_error", **_error(entry, node_id, executed, e))
        else:
            entry.status = "success"
            self._message(entry, "execution_success")

    async def _run_node(self, entry: Entry, node_id: str, values: dict[str, tuple[Any, ...]]) -> tuple[Any, ...]:
        if entry.interrupt.is_set():
            raise _Interrupted
        node = entry.prompt[node_id]
        given = {
            key: values[at[0]][at[1]] if (at := nodes.link(value)) else value for key, value in node["inputs"].items()
        }
        match node["class_type"]:
            case "CheckpointLoaderSimple":
                return (given["ckpt_name"],) * 3
            case "CLIPTextEncode":
                return (str(given["text"]),)
            case "EmptyLatentImage":
                width, height = int(given["width"]), int(given["height"])
                return (_Latent(width=width, height=height, batch=int(given["batch_size"])),)
            case "KSampler":
                await self._sample(entry, node_id, int(given["steps"]))
                before: _Latent = given["latent_image"]
                return (
                    _Latent(
                        width=before.width,
                        height=before.height,
                        batch=before.batch,
                        seed=int(given["seed"]),
                        text=f"{given['positive']}\n{given['negative']}",
                    ),
                )
            case "VAEDecode":
                return (given["samples"],)
            case "SaveImage":
                images = await self._save(entry, given["images"], "output", str(given["filename_prefix"]))
                entry.results[node_id] = {"images": images}
            case "PreviewImage":
                images = await self._save(entry, given["images"], "temp", "ComfyUI_temp")
                entry.results[node_id] = {"images": images}
            case _:
                raise _NodeFailed(str(given["message"]))
        return ()

    async def _sample(self, entry: Entry, node_id: str, steps: int) -> None:
        """`steps` steps; `--steps` caps them, so that a stand-in answers soon whatever a workflow asks for."""
        steps = min(steps, self._steps)
        for step in range(1, steps + 1):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._step_s):
                    await entry.interrupt.wait()
            if entry.interrupt.is_set():
                raise _Interrupted
            data = {"value": step, "max": steps, "prompt_id": entry.prompt_id, "node": node_id}
            self._send("progress", data, entry.client_id)

    async def _save(self, entry: Entry, latent: _Latent, kind: str, prefix: str) -> list[dict[str, str]]:
        target = inside(self.folder / kind, prefix)
        if target is None or not target.name:
            raise _NodeFailed(f"filename_prefix {prefix!r} leaves the output folder")
        note = msgspec.json.encode(entry.prompt).decode()
        saved = []
        for i in range(latent.batch):
            if entry.interrupt.is_set():
                raise _Interrupted
            seed = latent.seed + i
            image = await asyncio.to_thread(
                png.draw, latent.text, seed, width=latent.width, height=latent.height, note=note
            )
            path = await asyncio.to_thread(write_next, target, image)
            entry.files.append(path)
            subfolder = path.parent.relative_to(self.folder / kind).as_posix()
            saved.append({"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": kind})
        return saved


def _error(entry: Entry, node_id: str, executed: list[str], e: Exception) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "node_type": entry.prompt[node_id]["class_type"],
        "executed": executed,
        "exception_message": str(e),
        "exception_type": "OSError" if isinstance(e, OSError) else "RuntimeError",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }


def inside(folder: Path, name: str) -> Path | None:
    """`folder`/`name` with links resolved, or None when that lies outside `folder`."""
    if "\x00" in name:
        return None
    root = folder.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) else None


def _numbered(prefix: Path) -> Iterator[Path]:
    """Free names after the last picture there is: `prefix_00001_.png`, …"""
    taken = [p.name[len(prefix.name) + 1 :].split("_")[0] for p in prefix.parent.glob("*_*_.png")]
    first = max((int(n) for n in taken if n.isdecimal()), default=0) + 1
    return (prefix.with_name(f"{prefix.name}_{n:05}_.png") for n in itertools.count(first))


def write_next(prefix: Path, image: bytes) -> Path:
    """Write `image` under the next free number. A name is never overwritten, also by a second process."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for path in _numbered(prefix):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(fd, "wb") as f:
            f.write(image)
        return path
    raise AssertionError("names do not run out")
