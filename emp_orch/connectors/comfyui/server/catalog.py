"""What a ComfyUI server has: its node classes by /object_info, its files of models by /models.

Source: ComfyUI's server.py (https://github.com/comfyanonymous/ComfyUI). Both are read whole and seldom: the first has
megabytes, and the server lists its folders for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED
from emp_orch.connectors.comfyui.server.session import Session
from emp_orch.jobs.matching.offers import MAX_MODELS, MAX_NODES, Offers, is_model, is_name

READ_S = 60.0
CLASSES_EVERY_S = 600.0
MAX_FOLDERS = 500
# Lists of every file of every custom node, and of other things that are no models.
_NOT_MODELS = frozenset({"custom_nodes", "configs"})


class _Info(Struct):
    """What is read of one class. `input`: required, optional, hidden → name → type or choices, options."""

    input: dict[str, Any] = {}
    output_node: bool = False


class Catalog:
    """What one server has, as of the last look. Listing files is cheap; node classes are asked for only where the files
    are others, the server is, or long ago.
    """

    def __init__(self, server: Session) -> None:
        self._server = server
        self._last: tuple[int, frozenset[str]] | None = None
        self._offers: Offers | None = None
        self._read_at = 0.0

    async def read(self, life: int) -> Offers | None:
        """What it has; None when it is too old to tell. `life`: of which process. Raises NETWORK errors, MALFORMED."""
        async with asyncio.timeout(READ_S):
            models = await _models(self._server)
            if models is None:
                return None
            now = asyncio.get_running_loop().time()
            if (life, models) != self._last or now - self._read_at > CLASSES_EVERY_S:
                text = await self._server.get("object_info", timeout_s=READ_S)
                # A large one keeps a core busy for a while.
                self._offers = await asyncio.to_thread(_offers, text, models)
                self._last, self._read_at = (life, models), now
            return self._offers


async def _models(server: Session) -> frozenset[str] | None:
    try:
        folders = msgspec.json.decode(await server.get("models"), type=list[str])
    except aiohttp.ClientResponseError as e:
        if e.status in (404, 405):
            return None
        raise
    models: set[str] = set()
    for folder in folders[:MAX_FOLDERS]:
        if folder not in _NOT_MODELS and is_name(folder) and "/" not in folder:
            models.update(await _files(server, folder))
    return frozenset(models)


async def _files(server: Session, folder: str) -> Iterator[str]:
    try:
        names = msgspec.json.decode(await server.get(f"models/{folder}"), type=list[Any])
    except aiohttp.ClientResponseError:  # a folder that cannot be listed keeps nobody from the others
        names = []
    return (name for name in names if is_model(name))


def _offers(text: bytes, listed: frozenset[str]) -> Offers:
    models = set(listed)
    nodes: dict[str, tuple[str, ...]] = {}
    outputs: set[str] = set()
    for name, raw in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items():
        if not is_name(name) or len(nodes) >= MAX_NODES:
            continue
        try:
            info = msgspec.json.decode(raw, type=_Info)
        except MALFORMED:  # another's node class: it is there, whatever it says of itself
            info = _Info()
        choices = dict(_choices(info))
        nodes[name] = tuple(sorted(choices))
        if info.output_node:
            outputs.add(name)
        for values in choices.values():
            models.update(value for value in values if is_model(value))
    return Offers(nodes=nodes, outputs=frozenset(outputs), models=frozenset(sorted(models)[:MAX_MODELS]))


def _choices(info: _Info) -> Iterator[tuple[str, list[Any]]]:
    """The inputs that are a choice, each with what can be chosen: `[[…], {…}]`, and newer `["COMBO", {"options": …}]`.

    One whose choices the server fetches from elsewhere is none: nobody here knows them.
    """
    for group in ("required", "optional"):
        inputs = info.input.get(group)
        for name, kind in inputs.items() if isinstance(inputs, dict) else ():
            match kind:
                case [list() as listed, *_]:
                    yield name, listed
                case ["COMBO", {"options": list() as listed, **more}, *_] if not more.get("remote"):
                    yield name, listed
                case _:
                    continue
