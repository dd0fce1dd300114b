"""Input files all the way: from the command line through a worker into the service, and the same picture back."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_orch import settings
from emp_orch.layout import Layout
from emp_orch.services.simulation import png
from emp_orch.worker.limits import INTERRUPT_S
from support.redis.server import eventually, running_server
from support.worker.cli import emp, write_settings
from support.worker.processes import Bench, bench

SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "back"}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("inputs")
    with running_server("valkey", folder / "redis") as server, bench(folder, server) as made:
        write_settings(folder, server.url)
        layout = Layout(folder)
        limits = settings.InputLimits(hosts=("127.0.0.1",), max_bytes=1024**2)
        settings.save(layout, msgspec.structs.replace(settings.load(layout), inputs=limits))
        _, port = made.simulation()
        rules = ("--input-host", "127.0.0.1", "--input-max-bytes", str(1024**2))
        made.worker(f"comfyui=comfyui@http://127.0.0.1:{port}", options=rules)
        made.ready()
        yield made
        (inputs,) = folder.glob("data-*/input")
        assert list(inputs.glob("emp-job-*")) == [], "what a job brought is removed behind it"


def picture(red: int, *, alpha: int | None = None) -> bytes:
    size = 16
    mask = None if alpha is None else bytes([alpha]) * size * size
    return png.encode(png.Picture(width=size, height=size, rgb=bytes([red, 7, 9]) * size * size, alpha=mask))


def load(image: str, **more: Any) -> str:
    node = {"class_type": "LoadImage", "inputs": {"image": image, **more}}
    return json.dumps({"workflow": {"1": node, "2": SAVE}})


def submit(stage: Bench, *argv: str) -> dict[str, Any]:
    done = emp(stage.folder, "submit", "comfyui", "--wait", "--json", "--retries", "0", *argv)
    job: dict[str, Any] = json.loads(done.stdout)
    return job


def made_by(stage: Bench, job: dict[str, Any]) -> bytes:
    (output,) = job["result"]["outputs"]
    return png.decode((stage.folder / ".emp" / "artifacts" / job["id"] / output["path"]).read_bytes()).rgb


def file(stage: Bench, name: str, content: bytes) -> Path:
    path = stage.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_same_picture_comes_back_and_another_job_may_use_it(stage: Bench) -> None:
    file(stage, "x.png", picture(200))
    job = submit(stage, "--payload", load("photo.png [input]"), "--input", "photo.png=@x.png", "--id", "first")
    assert job["status"] == "completed", job["error"]
    assert made_by(stage, job) == png.decode(picture(200)).rgb
    (output,) = job["result"]["outputs"]
    source = f"photo.png=job:first/{output['name']}"
    assert made_by(stage, submit(stage, "--payload", load("photo.png"), "--input", source)) == made_by(stage, job)
    other = submit(stage, "--payload", load("photo.png"), "--input", source, "--customer", "someone")
    assert other["error"]["message"] == "input photo.png: job first is not of this job's customer"
    for named, words in (("nobody/x.png", "there is no job 'nobody'"), ("first/x.png", "job first made no x.png")):
        failed = submit(stage, "--payload", load("photo.png"), "--input", f"photo.png=job:{named}")
        assert failed["status"] == "failed" and words in failed["error"]["message"]


def test_two_jobs_with_other_pictures_of_one_name_get_their_own(stage: Bench) -> None:
    lines = []
    for red in range(4):
        file(stage, f"many/{red}.png", picture(red))
        inputs = {"photo.png": {"file": f"{red}.png"}}
        lines.append(
            {"service": "comfyui", "id": f"j{red}", "payload": json.loads(load("photo.png")), "inputs": inputs}
        )
    file(stage, "many/jobs.jsonl", b"\n".join(json.dumps(line).encode() for line in lines))
    done = emp(stage.folder, "submit", "-f", "many/jobs.jsonl", "--wait")
    assert done.returncode == 0, done.stderr
    for red in range(4):
        job = json.loads(emp(stage.folder, "jobs", "show", "--json", f"j{red}").stdout)
        assert made_by(stage, job) == png.decode(picture(red)).rgb


def test_a_mask_in_a_folder_is_found(stage: Bench) -> None:
    file(stage, "masks/m.png", picture(1, alpha=255))
    nodes = {
        "0": {"class_type": "LoadImageMask", "inputs": {"image": "set/m.png", "channel": "red"}},
        "1": {"class_type": "MaskToImage", "inputs": {"mask": ["0", 0]}},
        "2": SAVE,
    }
    file(stage, "flow.json", json.dumps({"workflow": nodes}).encode())
    job = submit(stage, "--workflow", "flow.json", "--input", "set=@masks/")
    assert job["status"] == "completed", job["error"]
    assert made_by(stage, job) == bytes([1, 1, 1]) * 256


def test_a_file_that_cannot_be_had_fails_its_job_and_is_named(stage: Bench) -> None:
    job = submit(stage, "--payload", load("photo.png"), "--input", "photo.png=http://127.0.0.1:1/x.png?sig=topsecret")
    assert job["status"] == "failed" and "input photo.png: http://127.0.0.1:1/x.png?…" in job["error"]["message"]
    assert "topsecret" not in json.dumps(job)
    file(stage, "gone.png", picture(99))
    emp(stage.folder, "submit", "other", "--id", "waits", "--input", "@gone.png")
    asset = json.loads(emp(stage.folder, "jobs", "show", "--json", "waits").stdout)["inputs"]["gone.png"]["asset"]
    path = stage.folder / ".emp" / "artifacts" / ".assets" / asset.removeprefix("sha256:")
    path.write_bytes(b"other bytes")
    job = submit(stage, "--payload", load("photo.png"), "--input", f"photo.png={asset}")
    assert job["status"] == "failed" and f"input photo.png: {asset}" in job["error"]["message"], job
    assert "damaged" in job["error"]["message"]


def test_a_job_that_waits_for_its_file_is_cancelled_at_once(stage: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it listens, and never says a word
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.png"
        argv = ("submit", "comfyui", "--id", "slow", "--payload", load("p.png"), "--input", f"p.png={url}")
        file(stage, "x.png", picture(200))
        assert emp(stage.folder, *argv).returncode == 0
        eventually(lambda: "fetching p.png" in emp(stage.folder, "jobs", "show", "slow").stdout)
        began = time.monotonic()
        emp(stage.folder, "cancel", "slow")
        eventually(lambda: "job slow: cancelled" in emp(stage.folder, "jobs", "show", "slow").stdout)
        assert time.monotonic() - began < INTERRUPT_S, "nothing was waited for that could not come"
    assert submit(stage, "--payload", load("photo.png"), "--input", "photo.png=@x.png")["status"] == "completed"
