"""A fleet whose artifact store is a bucket of a real S3 server, reached as its users say it: by AWS_* in the shell."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emp_orch.services.simulation import png
from support.servers.s3 import S3Server
from support.stack.stack import MACHINE, Stack, until

pytestmark = pytest.mark.timeout(400)
BUCKET, FOLDER = "renders", "farm/a"
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "back"}}
LOAD = {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}, "2": SAVE}}
RED = bytes([200, 7, 9]) * 256


class Bucketed(Stack):
    """The default fleet with one slot, its store in `server`; the shell's variables for it are `aws`."""

    def __init__(self, folder: Path, server: S3Server) -> None:
        super().__init__(folder, name="bucketed")
        self.aws = dict(server.env)
        config = yaml.safe_load(self.file.read_text())
        config["machines"][MACHINE]["num_gpus"] = 1
        config["jobs"] = {"keep": {"count": 100}}
        self.config: dict[str, Any] = config
        self.write(f"s3://{BUCKET}/{FOLDER}")

    def write(self, url: str, *, keep: int = 100) -> None:
        self.config["jobs"] = {"artifacts": url, "keep": {"count": keep}}
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return super().run(*args, **{**self.aws, **env})

    def refused(self, *words: str, **env: str) -> None:
        """An apply ends with `words` before anything is started or published."""
        said = self.run("apply", "-y", "--timeout", "60", **env)
        assert said.returncode == 1, said.stdout + said.stderr
        for word in words:
            assert word in said.stderr, said.stderr

    def loaded(self, job_id: str, source: str, *, within_s: str = "60s") -> dict[str, Any]:
        """The ended job that loads a picture and saves it."""
        words = ("--payload", json.dumps(LOAD), "--json", "--wait", "--timeout", within_s, "--id", job_id)
        done = self.run("submit", "comfyui", *words, "--input", f"photo.png={source}")
        assert done.stdout, f"{done.stderr}{self.log_ends()}"
        job: dict[str, Any] = json.loads(done.stdout)
        return job

    def fetched(self, job_id: str) -> Path:
        self.ok("jobs", "fetch", job_id, "-o", str(self.root / "fetched" / job_id))
        (file,) = (self.root / "fetched" / job_id).iterdir()
        return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as made:
        made.guard()
        yield made


@pytest.fixture(scope="module")
def fleet(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucketed]:
    stack = Bucketed(tmp_path_factory.mktemp("bucketed"), server)
    try:
        yield stack
    finally:
        stack.run("down")


def test_a_bucket_that_is_not_there_is_refused_and_not_made(fleet: Bucketed, server: S3Server) -> None:
    fleet.refused(f"s3://{BUCKET}/{FOLDER}", "The specified bucket does not exist", "make the bucket")
    assert server.buckets() == []
    assert fleet.leftovers() == []


def test_wrong_keys_and_a_server_that_is_away_are_refused_with_the_reason(fleet: Bucketed, server: S3Server) -> None:
    server.make_bucket(BUCKET)
    fleet.refused("signature", "check the login", AWS_SECRET_ACCESS_KEY="wrong")
    fleet.refused("Access Key Id you provided does not exist", AWS_ACCESS_KEY_ID="AKIANOBODY")
    fleet.refused("Could not connect to the endpoint URL", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert fleet.leftovers() == []
    doctor = fleet.run("doctor", AWS_SECRET_ACCESS_KEY="wrong").stdout
    assert "signature" in doctor, doctor


def test_jobs_complete_and_files_are_the_same(fleet: Bucketed, server: S3Server) -> None:
    fleet.up()
    photo = fleet.root / "x.png"
    photo.write_bytes(png.encode(png.Picture(width=16, height=16, rgb=RED, alpha=None)))
    first = fleet.loaded("first", f"@{photo}")
    assert first["status"] == "completed", f"{first['error']}{fleet.log_ends()}"
    (output,) = first["result"]["outputs"]
    file = fleet.fetched("first")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == output["sha256"]
    second = fleet.loaded("second", f"job:first/{file.name}")
    assert second["status"] == "completed", second["error"]
    assert [png.decode(f.read_bytes()).rgb for f in (file, fleet.fetched("second"))] == [RED, RED]
    kept = server.keys(BUCKET)
    assert all(key.startswith(f"{FOLDER}/") for key in kept)
    assert not [key for key in kept if ".probe-" in key or ".saving-" in key]
    assert f"{FOLDER}/first/{output['path']}" in kept
    # No service sees the login of the bucket.
    for program in ("comfyui-gpu0", "simulation"):
        environ = Path(f"/proc/{fleet.program(program).pid}/environ").read_bytes()
        assert b"AWS_" not in environ, program


def test_what_is_forgotten_is_removed_from_the_bucket(fleet: Bucketed, server: S3Server) -> None:
    assert server.keys(BUCKET, f"{FOLDER}/first/")
    fleet.ok("jobs", "purge", "--keep", "0", "-y")
    until("its objects are gone", lambda: not server.keys(BUCKET, f"{FOLDER}/first/"))
    until("its objects are gone", lambda: not server.keys(BUCKET, f"{FOLDER}/second/"))


def test_a_store_that_went_away_is_named(fleet: Bucketed, server: S3Server) -> None:
    """The last: this server keeps nothing when it ends."""
    server.stop()
    said = fleet.run("doctor")
    assert said.returncode == 1
    assert "Could not connect to the endpoint URL" in said.stdout, said.stdout
    assert f"s3://{BUCKET}/{FOLDER}" in said.stdout
    # It is in force already: that is told, and does not keep anybody from applying.
    done = fleet.run("apply", "-y", "--timeout", "60")
    assert done.returncode == 0, done.stderr
    assert "Could not connect to the endpoint URL" in done.stderr
