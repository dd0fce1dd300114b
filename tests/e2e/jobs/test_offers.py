"""A fleet whose services say what they have: a job nobody can run is told so, and the warm-up comes before the jobs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.stack.stack import MACHINE, Stack, until

SIMULATION = """    builtin: simulation
    port: {port} """
# A service of ComfyUI's protocol that takes only models that lie in its folder.
STRICT = """    command: >-
      {python} -m emp_orch simulate --port ${{port}} --dir pictures-${{gpu}} --models --step-ms 5
    discover: 500ms
    warmup: warm.json
    port: {port} """


def workflow(**nodes: Any) -> str:
    drawn = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    return json.dumps({"workflow": {**drawn, **nodes}})


def with_model(name: str) -> str:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}
    text = {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["3", 1]}}
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}}
    sampler = {
        "class_type": "KSampler",
        "inputs": {
            "model": ["3", 0],
            "positive": ["4", 0],
            "negative": ["4", 0],
            "latent_image": ["5", 0],
            "seed": 1,
            "steps": 1,
            "cfg": 8.0,
            "denoise": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
        },
    }
    decode = {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["3", 2]}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "y"}}
    return workflow(**{"3": loader, "4": text, "5": latent, "6": sampler, "7": decode, "8": save})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("offers"))
    text = made.file.read_text()
    old, port = SIMULATION.format(port=made.ports["comfyui"]), made.ports["comfyui"]
    assert old in text
    made.file.write_text(text.replace(old, STRICT.format(python=sys.executable, port=port)))
    (made.root / "warm.json").write_text(workflow())
    try:
        made.up()
        yield made
    finally:
        made.run("down")
        left = made.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def job(stack: Stack, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.ok("jobs", "show", job_id, "--json"))
    return found


def log_of(stack: Stack, gpu: int) -> str:
    (path,) = stack.layout.logs.rglob(f"*redis-worker-gpu{gpu}*.log")
    return path.read_text()


def test_each_slot_was_warmed_up_before_it_was_ready(stack: Stack) -> None:
    for gpu in (0, 1):
        assert log_of(stack, gpu).count("comfyui is warm") == 1
    assert "node classes" in stack.ok("status")
    stack.ok("submit", "comfyui", "--payload", workflow(), "--id", "after", "--wait")
    log = until("it is said", lambda: next((t for gpu in (0, 1) if "job after" in (t := log_of(stack, gpu))), None))
    assert log.index("comfyui is warm") < log.index("job after")


def test_a_job_whose_model_nobody_has_is_unworkable_until_somebody_has_it(stack: Stack) -> None:
    reason = f"no worker has model sd_xl.safetensors (checked 2 workers of machine {MACHINE})"
    stack.ok("submit", "comfyui", "--payload", with_model("sd_xl.safetensors"), "--id", "xl")
    until("the verdict", lambda: job(stack, "xl")["status"] == "unworkable")
    found = job(stack, "xl")
    assert (found["attempts"], found["error"]["message"]) == (0, reason)
    told = stack.ok("jobs", "explain", "xl")
    assert reason in " ".join(told.split()) and f"{MACHINE}-worker-1" in told
    # Others are not held up by it.
    stack.ok("submit", "comfyui", "--payload", workflow(), "--id", "other", "--wait")
    for gpu in (0, 1):
        folder = stack.layout.machine(MACHINE) / f"pictures-{gpu}" / "models" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sd_xl.safetensors").write_bytes(b"weights")
    until("its end", lambda: job(stack, "xl")["status"] == "completed")
    assert job(stack, "xl")["attempts"] == 1


def test_a_node_class_that_nobody_has(stack: Stack) -> None:
    fancy = workflow(**{"9": {"class_type": "FancyNode", "inputs": {}}})
    stack.ok("submit", "comfyui", "--payload", fancy, "--id", "fancy")
    until("the verdict", lambda: job(stack, "fancy")["status"] == "unworkable")
    assert job(stack, "fancy")["error"]["message"].startswith("no worker has node class FancyNode (checked 2 workers")
    stack.ok("cancel", "fancy")


def test_a_killed_service_is_warmed_up_again(stack: Stack) -> None:
    before = stack.program("comfyui-gpu0").pid
    os.kill(before, signal.SIGKILL)
    until("the warm-up", lambda: log_of(stack, 0).count("comfyui is warm") == 2)
    assert stack.program("comfyui-gpu0").pid != before
    assert log_of(stack, 1).count("comfyui is warm") == 1
    stack.until_in_sync()
