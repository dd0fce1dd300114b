"""A box that shares no folder with its fleet: what its jobs bring comes to it, and what they make comes back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emp_orch.jobs.document.states import ENDED
from emp_orch.services.simulation import png
from support.stack.box import BOX, Box
from support.stack.stack import Stack, until

LARGE = 192 * 1024**2
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "back"}}
LOAD = {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}, "2": SAVE}}

# A service whose answers are as large as they are asked to be, the same bytes each time.
MAKER = """
import http.server, json, random, sys

class Maker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"fine")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(random.Random(asked["seed"]).randbytes(1024**2) * asked["mib"])

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Maker).serve_forever()
"""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "fleet")
        self.box = Box(folder / "box")
        (folder / "maker.py").write_text(MAKER)
        config = yaml.safe_load(self.stack.file.read_text())
        config["services"]["maker"] = {
            "scale": "per_machine",
            "port": self.stack.ports["comfyui"] + 10,
            "command": [sys.executable, str(folder / "maker.py"), "${port}"],
            "connector": "http",
            "connector_options": {"path": "/run"},
            "health": {"http": "/"},
        }
        config["machines"] = {BOX: {"runtime": "external", "num_gpus": 1, "services": ["comfyui", "maker"]}}
        self.stack.file.write_text(yaml.safe_dump(config, sort_keys=False))
        self.folder = folder

    def up(self) -> None:
        self.stack.up(True)
        self.box.start(self.stack.ok("machine", "join", BOX, "--plain").strip())
        self.until_in_sync()

    def until_in_sync(self) -> None:
        try:
            self.stack.until_in_sync()
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.box.said()[-5_000:]}{self.stack.log_ends()}") from None

    def submit(self, service: str, payload: object, *options: str) -> dict[str, Any]:
        done = self.stack.run("submit", service, "--payload", json.dumps(payload), "--json", *options)
        assert done.stdout, done.stderr
        job: dict[str, Any] = json.loads(done.stdout)
        return job

    def fetched(self, job_id: str) -> list[Path]:
        folder = self.folder / "fetched" / job_id
        done = self.stack.run("jobs", "fetch", job_id, "-o", str(folder))
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.box.said()[-5_000:]}"
        return sorted(folder.iterdir())

    def uploading(self) -> list[Path]:
        """Files of the store that are being written, and hold something."""
        parts = self.stack.layout.artifacts.rglob(".saving-*")
        return [p for p in parts if p.stat().st_size]

    def ended(self, job_id: str) -> dict[str, Any] | None:
        job: dict[str, Any] = json.loads(self.stack.ok("jobs", "show", job_id, "--json"))
        return job if job["status"] in ENDED else None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("box"))
    try:
        lab.up()
        yield lab
    finally:
        lab.box.clear()
        lab.stack.run("down")
    left = lab.stack.leftovers()
    assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def made(seed: int, mib: int) -> str:
    """The sha256 of what the maker makes."""
    digest, part = hashlib.sha256(), random.Random(seed).randbytes(1024**2)
    for _ in range(mib):
        digest.update(part)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_what_a_box_makes_is_fetched_here(lab: Lab) -> None:
    job = lab.submit("maker", {"seed": 1, "mib": 3}, "--wait")
    assert job["status"] == "completed", job["error"]
    (output,) = job["result"]["outputs"]
    assert (output["size"], output["sha256"]) == (3 * 1024**2, made(1, 3))
    (file,) = lab.fetched(job["id"])
    assert sha256(file) == made(1, 3)
    found = [p for p in lab.box.folder.rglob("artifacts") if p.is_dir() and "packages" not in p.parts]
    assert not found, "its own store"


def test_what_a_job_brings_comes_to_the_box(lab: Lab) -> None:
    picture = png.Picture(width=16, height=16, rgb=bytes([200, 7, 9]) * 256, alpha=None)
    photo = lab.folder / "x.png"
    photo.write_bytes(png.encode(picture))
    first = lab.submit("comfyui", LOAD, "--id", "first", "--input", f"photo.png=@{photo}", "--wait", "--retries", "0")
    assert first["status"] == "completed", first["error"]
    (file,) = lab.fetched("first")
    assert png.decode(file.read_bytes()).rgb == picture.rgb
    source = f"photo.png=job:first/{file.name}"
    second = lab.submit("comfyui", LOAD, "--id", "second", "--input", source, "--wait", "--retries", "0")
    assert second["status"] == "completed", second["error"]
    (again,) = lab.fetched("second")
    assert png.decode(again.read_bytes()).rgb == picture.rgb
    other = lab.submit("comfyui", LOAD, "--input", source, "--customer", "someone", "--wait", "--retries", "0")
    assert other["error"]["message"] == "input photo.png: job first is not of this job's customer"


def test_an_api_that_dies_in_the_middle_of_an_upload_is_waited_for(lab: Lab) -> None:
    lab.submit("maker", {"seed": 2, "mib": LARGE // 1024**2}, "--id", "large")
    server = lab.stack.control("api")
    until("an upload under way", lab.uploading)
    os.kill(server.pid, signal.SIGKILL)
    done = until("the end of the job", lambda: lab.ended("large"), within_s=120)
    assert (done["status"], done["attempts"]) == ("completed", 1), f"{done}{lab.box.said()[-5_000:]}"
    (file,) = lab.fetched("large")
    assert sha256(file) == made(2, LARGE // 1024**2)
    assert "waits for it" in lab.box.said()
