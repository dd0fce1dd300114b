"""One socket for all of a worker's runs: what it saves, what it tells, and when it is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.services.simulation.config import SimulationConfig, folders_below
from emp_orch.services.simulation.server import Service
from support.comfyui.workflows import saved
from support.redis.server import until
from support.worker.connector import Stage, job_of, serving


class Twin:
    """The simulation in this process; `asked` are the paths of its clients' requests."""

    def __init__(self, folder: Path) -> None:
        config = SimulationConfig(hosts=("127.0.0.1",), port=0, folders=folders_below(folder, models=False))
        for path in (config.folders.output, config.folders.temp, config.folders.input):
            path.mkdir(parents=True)
        self.service = Service(config)
        self.asked: list[str] = []
        self.sockets: list[web.Request] = []
        self.app = self.service.app()
        self.app.middlewares.append(self._noting)

    @web.middleware
    async def _noting(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path == "/ws":
            self.sockets.append(request)
        answer: web.StreamResponse = await handler(request)
        return answer

    def cut(self) -> None:
        """Break every open socket, as a network does."""
        for request in self.sockets:
            if request.transport is not None:
                request.transport.abort()


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[tuple[Twin, ComfyUI]]:
    made = Twin(tmp_path / "twin")
    async with serving(made.app) as url:
        engine = asyncio.create_task(made.service.engine.run())
        connector = ComfyUI(url, {})
        yield made, connector
        await connector.close()
        engine.cancel()
        await asyncio.wait([engine])


def stage_of(folder: Path, color: int, *, prefix: str = "a") -> Stage:
    workflow = saved(color, prefix=prefix)
    return Stage(folder / "artifacts", job_of({"workflow": workflow}, job_id=f"job-{color}-{prefix}"))


async def told_free(twin: Twin, connector: ComfyUI) -> None:
    """Until the twin told that it is idle: a run's last message comes before."""
    heard = connector._client._channel.says_free

    async def free() -> bool:
        return heard()

    await until(free)


async def test_a_run_after_another_asks_only_what_it_must(twin: tuple[Twin, ComfyUI], tmp_path: Path) -> None:
    service, connector = twin
    first = await connector.run(stage_of(tmp_path, 1).run())
    assert len(first.outputs) == 1
    await told_free(service, connector)
    service.asked.clear()
    stage = stage_of(tmp_path, 2)
    result = await connector.run(stage.run())
    assert service.asked == ["/prompt", "/view"]
    assert [o.name for o in result.outputs] == ["a_00001_.png"] and stage.saved(result.outputs[0])


async def test_what_a_cache_answers_is_asked_of_the_history(twin: tuple[Twin, ComfyUI], tmp_path: Path) -> None:
    """Not every version tells of it."""
    service, connector = twin
    await connector.run(stage_of(tmp_path, 3).run())
    service.asked.clear()
    stage = stage_of(tmp_path, 3, prefix="b")
    result = await connector.run(stage.run())
    assert any(path.startswith("/history/") for path in service.asked)
    assert [o.name for o in result.outputs] == ["b_00001_.png"]


async def test_a_socket_that_broke_between_two_runs_is_made_anew(twin: tuple[Twin, ComfyUI], tmp_path: Path) -> None:
    service, connector = twin
    await connector.run(stage_of(tmp_path, 8).run())
    await told_free(service, connector)
    service.cut()

    async def noticed() -> bool:
        return not connector._client._channel.says_free()

    await until(noticed)
    service.asked.clear()
    stage = stage_of(tmp_path, 9)
    result = await connector.run(stage.run())
    assert service.asked[:2] == ["/queue", "/ws"], "nothing is believed of one that is gone"
    assert stage.saved(result.outputs[0])
    ids = [request.query["clientId"] for request in service.sockets]
    assert len(ids) == len(set(ids)) == 2, "ComfyUI mutes the newer of two under one id"
