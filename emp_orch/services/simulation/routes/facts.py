"""What the service says of itself: health, system, node classes, models."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from aiohttp import web

from emp_orch import __version__
from emp_orch.services.simulation import files
from emp_orch.services.simulation.config import MODEL_KINDS, SimulationConfig
from emp_orch.services.simulation.engine import Engine
from emp_orch.services.simulation.nodes import NODES
from emp_orch.services.simulation.nodes.model import object_info
from emp_orch.services.simulation.routes.answers import Table, json


def features(config: SimulationConfig) -> dict[str, Any]:
    """What a client may ask for."""
    return {"supports_preview_metadata": True, "max_upload_size": config.max_upload_bytes}


class Facts:
    """The routes that only tell."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._config = engine.config
        self._started = time.monotonic()

    def table(self) -> Table:
        table: Table = [
            ("GET", "/health", self.health),
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/object_info", self.object_info),
            ("GET", "/object_info/{node}", self.object_info),
            ("GET", "/models", self.models),
            ("GET", "/models/{kind}", self.models_of),
            ("GET", "/embeddings", self.embeddings),
            ("GET", "/extensions", self.extensions),
        ]
        return [*table, ("GET", "/features", self.features)] if self._config.speaks.feature_flags else table

    async def health(self, _: web.Request) -> web.Response:
        """The simulation's own; ComfyUI has none."""
        engine = self._engine
        return json(
            {
                "status": "ok",
                "service": "simulation",
                "version": __version__,
                "gpu": self._config.gpu,
                "busy": engine.queue.running is not None,
                "queue_remaining": engine.queue.remaining,
                "freed": {
                    "unload_models": engine.freed.unload_models,
                    "free_memory": engine.freed.free_memory,
                },
                "uptime_s": round(time.monotonic() - self._started, 3),
            }
        )

    async def system_stats(self, _: web.Request) -> web.Response:
        return json(_system_stats(self._config))

    async def features(self, _: web.Request) -> web.Response:
        return json(features(self._config))

    async def object_info(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("node")
        names = list(NODES) if wanted is None else [wanted] if wanted in NODES else []
        return json({name: object_info(name, NODES[name], self._config.folders) for name in names})

    async def models(self, _: web.Request) -> web.Response:
        return json(list(self._config.folders.models or MODEL_KINDS))

    async def models_of(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        if kind not in (self._config.folders.models or MODEL_KINDS):
            return web.Response(status=404)
        return json(files.models_in(kind, self._config.folders))

    async def embeddings(self, _: web.Request) -> web.Response:
        return json([name.rpartition(".")[0] for name in files.models_in("embeddings", self._config.folders)])

    async def extensions(self, _: web.Request) -> web.Response:
        return json([])


def _memory() -> tuple[int, int]:
    """Of this host: all, and what is available."""
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")


def _system_stats(config: SimulationConfig) -> dict[str, Any]:
    """In ComfyUI's form; the device is a stand-in and says so. Its memory is this host's, as with --cpu."""
    total, free = _memory()
    device = {
        "name": "cpu" if config.gpu is None else f"simulated:{config.gpu}",
        "type": "cpu",
        "index": config.gpu,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }
    system = {
        "os": sys.platform if config.speaks.jobs else os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": config.shown_version or config.version,
        "python_version": sys.version,
        "pytorch_version": "",
        "embedded_python": False,
        "argv": list(config.argv),
    }
    return {"system": system, "devices": [device]}
