"""The `simulation` connector: payload `{"prompt": "text", "seed": 1, "steps": 5}`, a small picture as the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.connectors.base import MALFORMED, PROBE_TIMEOUT_S, Run, RunFailed
from emp_orch.connectors.comfyui.client import ComfyClient
from emp_orch.connectors.comfyui.server.protocol import Workflow
from emp_orch.connectors.http.client import NETWORK
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Job, Result
from emp_orch.options.base import no_options


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A payload. `fail`, when given, makes the run fail with that message. The service checks the ranges."""

    prompt: str = ""
    seed: int = 0
    steps: int = 10
    width: int = 256
    height: int = 256
    fail: str | None = None


class _Health(Struct):
    status: str
    version: str = ""


def workflow_of(request: Request) -> Workflow:
    """The workflow that draws what `request` asks for."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    workflow = {
        "1": node("CheckpointLoaderSimple", ckpt_name="simulation"),
        "2": node("CLIPTextEncode", text=request.prompt, clip=["1", 1]),
        "3": node("CLIPTextEncode", text="", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=request.width, height=request.height, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            seed=request.seed,
            steps=request.steps,
            cfg=8.0,
            denoise=1.0,
            sampler_name="euler",
            scheduler="normal",
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="simulation"),
    }
    if request.fail is not None:
        workflow["7"] = node("SimulatedError", images=["6", 0], message=request.fail)
    return workflow


class Simulation:
    """Runs simple payloads on the simulation service."""

    kind = "simulation"

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        no_options(self.kind, options)
        self._client = ComfyClient(url)

    async def probe(self) -> ConnectorReport:
        try:
            health = msgspec.json.decode(await self._client.get("health", timeout_s=PROBE_TIMEOUT_S), type=_Health)
        except NETWORK as e:
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=self._client.gone(e).error.message)
        except MALFORMED as e:
            detail = f"{self._client.shown} answers, but not as the simulation does: {e}"
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=detail)
        if health.status != "ok":
            return ConnectorReport(status=ConnectorStatus.ERROR, detail=f"its health is {health.status!r}")
        return ConnectorReport(status=ConnectorStatus.IDLE, version=health.version)

    async def run(self, run: Run) -> Result:
        return await self._client.run(_workflow_for(run.job), run)

    async def recover(self, run: Run, ref: str, *, wait: bool) -> Result | None:
        return await self._client.recover(_workflow_for(run.job), run, ref, wait=wait)

    async def cancel(self) -> None:
        await self._client.cancel()

    async def close(self) -> None:
        await self._client.close()


def _workflow_for(job: Job) -> Workflow:
    try:
        return workflow_of(msgspec.convert(job.payload, Request))
    except msgspec.ValidationError as e:
        raise RunFailed(f"the payload does not fit: {e}", retryable=False) from e
