"""A worker and what its ComfyUI has: jobs that others must run, files that come and go, the warm-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from emp_orch.fleet.model.observed import ConnectorReport
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.offers import Needs
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from support.redis.server import eventually, job
from support.worker.processes import KEYS, Bench

MODELS = ("--models",)
EVERY_SECOND = ("--discover", "comfyui=0.2")


@pytest.fixture
async def queue(r: Client) -> AsyncIterator[Queue]:
    yield Queue(r, KEYS)


def workflow(checkpoint: str, **more: Any) -> dict[str, Any]:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    drawn = {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=16, height=16, batch_size=1),
        "4": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            seed=1,
            steps=1,
            cfg=8.0,
            denoise=1.0,
            sampler_name="euler",
            scheduler="normal",
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="x"),
    }
    return {"workflow": {**drawn, **more}}


def put(stage: Bench, port: int, name: str) -> Path:
    path = stage.folder / f"data-{port}" / "models" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def connector(stage: Bench, gpu: int = 0) -> ConnectorReport | None:
    report = stage.report(gpu)
    return report.connector_statuses["comfyui"] if report else None


async def reached(queue: Queue, job_id: str, *wanted: JobStatus) -> Job:
    async with asyncio.timeout(30):
        while (found := await queue.get(job_id)).status not in wanted:
            await asyncio.sleep(0.02)
    return found


async def settled(queue: Queue, job_id: str) -> None:
    """It ended, or was handed on."""
    async with asyncio.timeout(30):
        while (found := await queue.get(job_id)).status not in ENDED and found.requirements.needs is None:
            await asyncio.sleep(0.02)


def starts(stage: Bench, port: int, gpu: int = 0, *options: str) -> Any:
    return stage.worker(f"comfyui=comfyui@http://127.0.0.1:{port}", gpu=gpu, options=(*EVERY_SECOND, *options))


async def test_a_worker_tells_what_its_service_has_by_one_document(stage: Bench, r: Client) -> None:
    ports = []
    for gpu in (0, 1):
        _, port = stage.simulation(options=MODELS)
        put(stage, port, "sub/a.safetensors")
        put(stage, port, "notes.txt")
        starts(stage, port, gpu)
        ports.append(port)
    eventually(lambda: all((c := connector(stage, gpu)) is not None and c.models == 1 for gpu in (0, 1)))
    one, other = connector(stage, 0), connector(stage, 1)
    assert one is not None and other is not None and one.offers == other.offers != ""
    assert [k async for k in r.scan_iter(f"{KEYS.prefix}offers:*")] == [KEYS.offers(one.offers)]
    offers = (await OffersStore(r, KEYS).of([one.offers]))[one.offers]
    assert offers.models == {"sub/a.safetensors"} and one.node_classes == len(offers.nodes) > 5
    assert "SaveImage" in offers.outputs and "KSampler" not in offers.outputs
    assert "ckpt_name" in offers.nodes["CheckpointLoaderSimple"]


async def test_a_job_goes_to_the_worker_that_has_its_model(stage: Bench, r: Client, queue: Queue) -> None:
    """Handed on without a run, without an attempt, and then not offered to the first any more."""
    _, poor = stage.simulation(options=MODELS)
    starts(stage, poor)
    stage.ready()
    sent = await queue.submit(job("comfyui", payload=workflow("b.safetensors")))
    eventually(lambda: "does not have model b.safetensors" in stage.daemons[-1].log)
    waits = await reached(queue, sent.job_id, JobStatus.PENDING)
    assert (waits.attempts, waits.requirements.needs) == (0, Needs(models=("b.safetensors",)))
    why = await Explainer(r, KEYS, "f").why(waits)
    assert why == "no worker can run it: m-worker-0: model b.safetensors is needed, the worker does not have it"
    other = await queue.submit(job("comfyui", payload={"workflow": {"1": {"class_type": "Fancy", "inputs": {}}}}))
    eventually(lambda: "does not have node class Fancy" in stage.daemons[1].log)
    assert (await queue.get(other.job_id)).attempts == 0
    _, rich = stage.simulation(options=MODELS)
    put(stage, rich, "b.safetensors")
    starts(stage, rich, 1)
    done = await reached(queue, sent.job_id, *ENDED)
    assert (done.status, done.worker_id, done.attempts) == (JobStatus.COMPLETED, "m-worker-1", 1)
    assert [h.event for h in done.history].count("job_assigned") == 2


async def test_files_that_come_and_go(stage: Bench, queue: Queue) -> None:
    """A copied model makes the job run; one that went since the last look costs no attempt."""
    _, port = stage.simulation(options=MODELS)
    starts(stage, port)
    stage.ready()
    sent = await queue.submit(job("comfyui", payload=workflow("c.ckpt")))
    eventually(lambda: "does not have model c.ckpt" in stage.daemons[-1].log)
    path = put(stage, port, "c.ckpt")
    assert (await reached(queue, sent.job_id, *ENDED)).status is JobStatus.COMPLETED
    stage.daemons[-1].terminate()
    seldom = stage.worker(f"comfyui=comfyui@http://127.0.0.1:{port}", options=("--discover", "comfyui=11"))
    stage.ready()
    eventually(lambda: (c := connector(stage)) is not None and c.models == 1)
    path.unlink()
    while True:  # it is asked once a second at most, and was asked just now
        gone = await queue.submit(job("comfyui", payload=workflow("c.ckpt")))
        await settled(queue, gone.job_id)
        if "does not have model c.ckpt" in seldom.log:
            break
    found = await reached(queue, gone.job_id, JobStatus.PENDING)
    assert found.attempts == 0 and found.requirements.needs == Needs(models=("c.ckpt",))


async def test_a_worker_that_is_not_to_ask_may_have_everything(stage: Bench, queue: Queue) -> None:
    _, port = stage.simulation(options=MODELS)
    stage.worker(f"comfyui=comfyui@http://127.0.0.1:{port}", options=("--discover", "comfyui=0"))
    assert stage.ready().connector_statuses["comfyui"].offers == ""
    sent = await queue.submit(job("comfyui", payload=workflow("d.ckpt")))
    failed = await reached(queue, sent.job_id, *ENDED)
    assert failed.status is JobStatus.FAILED and failed.error is not None and "d.ckpt" in failed.error.message


async def runs_of(port: int) -> list[str]:
    """How the runs that the service remembers ended."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/history") as answer:
        return [record["status"]["status_str"] for record in (await answer.json()).values()]


async def test_a_warm_up_runs_after_each_start_of_the_service(stage: Bench, r: Client, queue: Queue) -> None:
    file = stage.folder / "warmup.json"
    file.write_bytes(msgspec.json.encode(workflow("simulation")))
    warm = ("--warmup", f"comfyui={file}")
    service, port = stage.simulation(step_ms=300)
    worker = starts(stage, port, 0, *warm)
    eventually(lambda: (c := connector(stage)) is not None and (c.status, c.detail) == ("starting", "warming up"))
    report = stage.report()
    assert report is not None and report.status == "initializing"
    sent = await queue.submit(job("comfyui", payload=workflow("simulation")))
    done = await reached(queue, sent.job_id, *ENDED)
    assert done.status is JobStatus.COMPLETED and worker.log.index("comfyui is warm") < worker.log.index(sent.job_id)
    assert await runs_of(port) == ["success", "success"], "the warm-up, then the job"
    assert (await queue.counts())[JobStatus.COMPLETED] == 1, "a warm-up is no job"
    assert not [p for p in (stage.folder / ".emp" / "artifacts").rglob("*") if "warmup" in p.name]
    service.kill()
    stage.simulation(step_ms=300, port=port)
    eventually(lambda: worker.log.count("comfyui is warm") == 2)
    stage.ready()
    assert await runs_of(port) == ["success"]
    assert await r.keys(f"{KEYS.prefix}job:warmup*") == []


async def test_a_warm_up_that_fails_says_so_and_is_tried_again(stage: Bench, queue: Queue) -> None:
    file = stage.folder / "warmup.json"
    file.write_bytes(msgspec.json.encode(workflow("w.ckpt")))
    _, port = stage.simulation(options=MODELS)
    worker = starts(stage, port, 0, "--warmup", f"comfyui={file}")
    eventually(lambda: (c := connector(stage)) is not None and c.status == "error")
    found = connector(stage)
    assert found is not None and found.detail.startswith("warm-up: ") and "w.ckpt" in found.detail
    sent = await queue.submit(job("comfyui", payload=workflow("w.ckpt")))
    put(stage, port, "w.ckpt")
    done = await reached(queue, sent.job_id, *ENDED)
    assert done.status is JobStatus.COMPLETED and done.attempts == 1
    assert "once more in 5 s" in worker.log
