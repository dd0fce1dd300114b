"""Slots of a command of the user's own on one checkout: told of, and still each job gets its own pictures.

The checkout's main.py is the twin.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.services.simulation.png import decode
from support.comfyui.checkout import TWIN, make_checkout
from support.stack.stack import Stack, until

EMP_YAML = """\
version: 1
name: shared
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  comfyui:
    scale: per_gpu
    connector: comfyui
    cwd: {checkout}
    command: {python} main.py --port ${{port}} --cpu{more}
    port: {comfyui}
    health: {{http: /system_stats, interval: 500ms, timeout: 2s, failures: 10, startup: 60s}}
machines:
  box: {{runtime: process, num_gpus: 2, services: [comfyui]}}
"""
KIND = "service-shared-folders"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("opt") / "ComfyUI", main=TWIN)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("fleet"))
    write(stack, checkout)
    try:
        stack.up()
        yield stack
    finally:
        stack.run("down")
        left = stack.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def write(stack: Stack, checkout: Path, more: str = "") -> None:
    python = checkout / ".venv/bin/python"
    stack.file.write_text(EMP_YAML.format(checkout=checkout, python=python, more=more, **stack.ports))


def workflow(color: int, **more: Any) -> str:
    nodes = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
        **more,
    }
    return json.dumps({"workflow": nodes})


def drifts(stack: Stack) -> list[dict[str, Any]]:
    return [item["drift"] for item in stack.diff()[1]["drift"]]


def test_one_folder_for_two_slots_is_told_and_holds_nothing_up(stack: Stack, checkout: Path) -> None:
    """`emp apply` came through; the difference stands until a person ends it."""
    (drift,) = until("the shared folder is told", lambda: [d for d in drifts(stack) if d["kind"] == KIND])
    assert drift["subject"] == "box comfyui" and drift["origin"] == "emp.yaml:7:3"
    assert drift["observed"].startswith(f"slots 0, 1 share output {checkout}/output; slots 0, 1 share temp")
    assert f"slots 0, 1 share output {checkout}/output" in stack.run("doctor").stdout
    told = stack.ok("explain", "box")
    assert "`builtin: comfyui` gives each slot folders of its own" in told and "--temp-directory with ${port}" in told


def test_each_job_gets_its_own_picture_under_the_name_its_workflow_says(stack: Stack) -> None:
    for colour in (0x102030, 0x405060, 0x708090):
        done = json.loads(stack.ok("submit", "comfyui", "--payload", workflow(colour), "--wait", "--json"))
        (output,) = done["result"]["outputs"]
        assert output["name"] == "same_00001_.png"
        job_id = done.get("job_id") or done["id"]
        picture = decode((stack.layout.artifacts / job_id / output["path"]).read_bytes())
        assert picture.rgb[:3] == colour.to_bytes(3, "big")


def test_what_a_failed_run_had_made_is_there(stack: Stack, tmp_path: Path) -> None:
    raising = {"3": {"class_type": "TestRaise", "inputs": {"images": ["1", 0], "message": "no paint"}}}
    failed = stack.run(
        "submit", "comfyui", "--payload", workflow(0x112233, **raising), "--wait", "--json", "--id", "half"
    )
    assert failed.returncode == 1, failed.stdout + failed.stderr
    with urllib.request.urlopen(f"{stack.api}/api/jobs/half", timeout=10) as answer:
        (output,) = json.load(answer)["data"]["outputs"]
    assert output["url"] == "/api/jobs/half/artifacts/same_00001_.png"
    shown = stack.ok("jobs", "show", "half")
    assert "TestRaise (node 3): no paint" in shown and "same_00001_.png" in shown
    fetched = Path(stack.ok("jobs", "fetch", "half", "-o", str(tmp_path)).strip())
    assert decode(fetched.read_bytes()).rgb[:3] == b"\x11\x22\x33"


def test_a_gpu_without_memory_is_followed_by_another(stack: Stack) -> None:
    raising = {"3": {"class_type": "TestOutOfMemory", "inputs": {"images": ["1", 0]}}}
    how = ("--id", "large", "--retries", "1", "--wait", "--json")
    failed = stack.run("submit", "comfyui", "--payload", workflow(0, **raising), *how)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    job = json.loads(stack.ok("jobs", "show", "large", "--json"))
    at_work = [entry["worker_id"] for entry in job["history"] if entry["event"] == "job_assigned"]
    assert sorted(at_work) == ["box-worker-0", "box-worker-1"]


def test_folders_by_port_end_it(stack: Stack, checkout: Path) -> None:
    own = f"{checkout}/slots/${{port}}"
    write(stack, checkout, f" --output-directory {own} --temp-directory {own}")
    stack.up()
    until("in sync", lambda: not drifts(stack), shown=lambda: str(drifts(stack)))
