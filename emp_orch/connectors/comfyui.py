"""The `comfyui` connector: payload `{"workflow": {…}}` in ComfyUI's API format (also as `prompt`)."""

from __future__ import annotations

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED, OnProgress, RunFailed
from emp_orch.connectors.comfy_client import PROBE_TIMEOUT_S, ComfyClient
from emp_orch.connectors.comfy_protocol import parse_workflow
from emp_orch.fleet.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.model import Job, Result


class _System(Struct):
    comfyui_version: str = ""


class _Stats(Struct):
    """What is read of /system_stats."""

    system: _System
    devices: list[dict[str, object]] = []


class ComfyUI:
    """Runs workflows on a ComfyUI server."""

    kind = "comfyui"

    def __init__(self, url: str) -> None:
        self._client = ComfyClient(url)

    async def probe(self) -> ConnectorReport:
        try:
            stats = msgspec.json.decode(await self._client.get("system_stats", timeout_s=PROBE_TIMEOUT_S), type=_Stats)
        except (aiohttp.ClientError, OSError) as e:
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=self._client.gone(e).error.message)
        except MALFORMED as e:
            detail = f"{self._client.shown} answers, but not as ComfyUI does: {e}"
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=detail)
        return ConnectorReport(status=ConnectorStatus.IDLE, version=stats.system.comfyui_version)

    async def run(self, job: Job, on_progress: OnProgress) -> Result:
        for name in ("workflow", "prompt"):
            if name in job.payload:
                workflow = parse_workflow(job.payload[name])
                return await self._client.run(workflow, on_progress, extra_data={"emp_job_id": job.id})
        raise RunFailed('the payload holds no workflow: use {"workflow": {…}}', retryable=False)

    async def cancel(self) -> None:
        await self._client.cancel()

    async def close(self) -> None:
        await self._client.close()
