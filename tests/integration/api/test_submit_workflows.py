"""A workflow is checked when it is submitted, whichever way it comes, once its service's connector is known."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from emp_orch.jobs.document.submission import BadSubmission, parse_submission
from emp_orch.jobs.matching.offers import Offers, digest_of, encoded
from emp_orch.store.queue.known_services import KnownServices
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.queue.submit import Queue
from support.http.calls import get, post
from support.http.stack import FLEET, Producer, Stack, fleet_of
from support.redis.server import until
from support.worker.processes import EMP

FLOW: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
LOOSE = {"2": FLOW["2"]}
KEY = "comfyui-2f8a11d0c4"
WRONG = "payload: node 2 (SaveImage): input images links to node 1, which is not there"


def comfy(payload: Any) -> dict[str, Any]:
    return {"service": "comfyui", "payload": payload}


@pytest.fixture
async def applied(producer: Producer) -> Producer:
    await producer.apply(fleet_of("m1"))
    return producer


async def test_the_api_takes_every_form_and_names_what_is_wrong(api: aiohttp.ClientSession, applied: Producer) -> None:
    forms = [
        FLOW,
        {"workflow": FLOW},
        {"prompt": FLOW, "client_id": "x"},
        json.dumps(FLOW),
        {"input": {"workflow": FLOW}},
    ]
    for form in forms:
        made = await post(api, "/api/jobs", 201, comfy(form))
        job = await get(api, f"/api/jobs/{made['job_id']}")
        assert job["payload"] == {"workflow": FLOW} and job["secrets"] == []
    # In any form it is the same job.
    for form in forms:
        made = await post(api, "/api/jobs", 201 if form is forms[0] else 200, {**comfy(form), "id": "one"})
    assert WRONG in (await post(api, "/api/jobs", 400, comfy(LOOSE)))["error"]
    large = {**LOOSE, "9": {"class_type": "Note", "inputs": {"text": "x" * 300_000}}}
    assert WRONG in (await post(api, "/api/jobs", 400, comfy(large)))["error"]
    for batch in ([comfy(FLOW), comfy(LOOSE)], [comfy(large)] * 2):
        found = await post(api, "/api/jobs", 400, batch)
        assert f"jobs[1].{WRONG}" in found["error"]
    # Of a service that does not run ComfyUI nothing is asked.
    await post(api, "/api/jobs", 201, {"service": "simulation", "payload": LOOSE})


async def test_a_service_that_is_not_known_yet_is_checked_once_it_is(
    api: aiohttp.ClientSession, producer: Producer
) -> None:
    await post(api, "/api/jobs", 201, comfy(LOOSE))
    await producer.apply(fleet_of("m1"))

    async def refused() -> bool:
        async with api.post("/api/jobs", json=comfy(LOOSE)) as answer:
            return answer.status == 400

    await until(refused, within_s=5)


async def test_a_workflow_without_an_output_is_refused_where_workers_tell_their_classes(
    applied: Producer, http_stack: Stack
) -> None:
    lonely = {"1": FLOW["1"]}
    text = encoded(Offers(nodes={"EmptyImage": (), "SaveImage": ()}, outputs=frozenset({"SaveImage"})))
    await OffersStore(applied.redis, applied.keys).keep(digest_of(text), text)
    told = {"connector_statuses": {"comfyui": {"status": "idle", "offers": digest_of(text)}}}
    await applied.redis.hset(applied.keys.workers, mapping={"m1-worker-0": json.dumps(told), "m1-worker-1": "["})
    services = await KnownServices(applied.redis, applied.keys, FLEET).now()
    with pytest.raises(BadSubmission, match="no node of it is an output"):
        parse_submission(comfy(lonely), services)
    assert parse_submission(comfy(FLOW), services)
    custom = {**lonely, "2": {"class_type": "SaveToMoon", "inputs": {}}}
    assert parse_submission(comfy(custom), services)


async def test_the_websocket_checks_too(http_stack: Stack, applied: Producer) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{http_stack.api}/ws/client/c") as ws:
        await ws.send_json({"type": "submit_job", "request_id": "7", "job": comfy(LOOSE)})
        said = await ws.receive_json()
        assert (said["type"], said["request_id"]) == ("error", "7") and WRONG in said["error"]
        await ws.send_json({"type": "submit_job", "request_id": "8", "job": comfy(FLOW)})
        assert (await ws.receive_json())["type"] == "job_submitted"


async def emp(stack: Stack, *argv: str, stdin: str = "") -> tuple[int, str, str]:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        *(*EMP, "-C", str(stack.layout.root), *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_emp_submit_workflow(http_stack: Stack, applied: Producer) -> None:
    root, queue = http_stack.layout.root, Queue(applied.redis, applied.keys)
    request = {"prompt": FLOW, "extra_data": {"api_key_comfy_org": KEY, "preview_method": "auto"}}
    (root / "flow.json").write_text(json.dumps(request))
    (root / "loose.json").write_text(json.dumps(LOOSE))
    (root / "torn.json").write_text('{\n  "1": {\n    "class_type": é"X"\n}}')
    (root / "cut.json").write_text('{"1": {')
    code, out, err = await emp(http_stack, "submit", "comfyui", "--workflow", "flow.json")
    assert code == 0, err
    job = await queue.get(out.strip())
    assert job.payload == {"workflow": FLOW, "extra_data": {"preview_method": "auto"}}
    assert job.secrets == ("api_key_comfy_org",)
    code, out, _ = await emp(http_stack, "jobs", "show", out.strip())
    assert code == 0 and KEY not in out
    code, out, err = await emp(http_stack, "submit", "comfyui", "--workflow", "-", stdin=json.dumps(FLOW))
    assert code == 0 and (await queue.get(out.strip())).payload == {"workflow": FLOW}, err
    for argv, said in (
        (("--workflow", "loose.json"), WRONG),
        (("--workflow", "torn.json"), "--workflow: torn.json:3:19 is not JSON"),
        (("--workflow", "cut.json"), "--workflow: cut.json:1:8 is not JSON"),
        (("--workflow", "none.json"), "--workflow: cannot read none.json: No such file"),
        (("--workflow", "flow.json", "--payload", "{}"), "are both the payload"),
    ):
        code, out, err = await emp(http_stack, "submit", "comfyui", *argv)
        assert (code, out) == (2, "") and said in err, err
        code, out, err = await emp(http_stack, "submit", "comfyui", *argv, "--wait")
        assert (code, out) == (2, "") and said in err, err
    # Without .json it is the workflow that the job belongs to, as before.
    code, out, _ = await emp(http_stack, "submit", "simulation", "--workflow", "upscale")
    assert code == 0 and (await queue.get(out.strip())).requirements.workflow == "upscale"


async def test_emp_submit_file_names_the_line(http_stack: Stack, applied: Producer) -> None:
    lines = "\n".join(json.dumps(comfy(p)) for p in (FLOW, LOOSE, {"prompt": FLOW}))
    (http_stack.layout.root / "jobs.jsonl").write_text(lines)
    code, out, err = await emp(http_stack, "submit", "-f", "jobs.jsonl")
    assert (code, out) == (2, "") and f"jobs.jsonl:2: {WRONG}" in err
    code, out, err = await emp(http_stack, "submit", "-f", "-", stdin=lines)
    assert code == 2 and f"standard input:2: {WRONG}" in err
