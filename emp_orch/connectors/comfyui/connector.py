"""The `comfyui` connector: payload `{"workflow": {…}}` in ComfyUI's API format (or another form of jobs/workflows)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED, PROBE_TIMEOUT_S, Run, RunFailed
from emp_orch.connectors.comfyui.client import ComfyClient
from emp_orch.connectors.comfyui.files.inputs import Inputs, referring
from emp_orch.connectors.comfyui.run.extra import extra_data_of
from emp_orch.connectors.comfyui.server.catalog import Catalog
from emp_orch.connectors.comfyui.server.folders import Folders, cwd_behind, folders_of
from emp_orch.connectors.comfyui.server.protocol import Workflow, parse_workflow
from emp_orch.connectors.comfyui.server.restarts import Watch
from emp_orch.connectors.http.client import NETWORK
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Job, Result
from emp_orch.jobs.document.workflows import normalised
from emp_orch.jobs.matching.offers import Offers
from emp_orch.options.comfyui import options_of


class _System(Struct):
    comfyui_version: str = ""
    argv: list[object] = []


class _Stats(Struct):
    """What is read of /system_stats."""

    system: _System
    devices: list[dict[str, object]] = []


class ComfyUI:
    """Runs workflows on a ComfyUI server."""

    kind = "comfyui"

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._options = options_of(options)
        self._client = ComfyClient(url, self._options.tidy)
        self._inputs = Inputs(self._client.server)
        self._argv: list[object] = []
        self._folders = Folders()
        self._watch = Watch(self._client.server)
        self._catalog = Catalog(self._client.server)

    @property
    def life(self) -> int:
        return self._watch.life

    async def offers(self) -> Offers | None:
        with self._client.server.in_words():
            return await self._catalog.read(self.life)

    async def probe(self) -> ConnectorReport:
        try:
            stats = msgspec.json.decode(await self._client.get("system_stats", timeout_s=PROBE_TIMEOUT_S), type=_Stats)
            occupied = await self._client.occupancy.look(timeout_s=PROBE_TIMEOUT_S)
        except NETWORK as e:
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=self._client.gone(e).error.message)
        except MALFORMED as e:
            detail = f"{self._client.shown} answers, but not as ComfyUI does: {e}"
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=detail)
        await self._look_at_folders(stats.system.argv)
        await self._watch.look()
        return ConnectorReport(
            status=ConnectorStatus.IDLE,
            version=stats.system.comfyui_version,
            output_folder=self._folders.output,
            temp_folder=self._folders.temp,
            occupied_by=occupied.by if occupied else "",
            occupant=occupied.occupant if occupied else None,
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        if self._folders.output or self._options.tidy is None:
            return ()
        return (
            "where it writes cannot be seen from here, so what its runs make stays there (tidy: false says no more)",
        )

    async def _look_at_folders(self, argv: list[object]) -> None:
        if argv != self._argv:
            cwd = await asyncio.to_thread(cwd_behind, self._client.server.url)
            self._folders, self._argv = folders_of(argv, cwd), argv
        await self._client.look_into(self._folders)
        await self._inputs.remove_leftovers(self._folders.input)

    async def run(self, run: Run) -> Result:
        workflow = _workflow_of(run.job)
        try:
            with self._client.server.in_words():
                places = await self._inputs.put(run)
            return await self._client.run(referring(workflow, places), run, extra_data_of(run))
        finally:
            await self._inputs.remove(run, self._folders.input)

    async def recover(self, run: Run, ref: str, *, wait: bool) -> Result | None:
        found = await self._client.recover(_workflow_of(run.job), run, ref, wait=wait)
        await self._inputs.remove(run, self._folders.input)
        return found

    async def cancel(self) -> None:
        self._inputs.stop()
        await self._client.cancel()

    async def close(self) -> None:
        await self._watch.close()
        await self._client.close()


def _workflow_of(job: Job) -> Workflow:
    """Checked when it was submitted, unless nobody knew then that this service is a ComfyUI."""
    for name in ("workflow", "prompt"):
        if name in job.payload:
            return parse_workflow(job.payload[name])
    asked = normalised(job.payload)
    if isinstance(asked, list):
        raise RunFailed("; ".join(asked), retryable=False)
    workflow: Workflow = asked.payload["workflow"]
    return workflow
