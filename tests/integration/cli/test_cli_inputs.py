"""`emp submit --input` as a user types it: files become assets, and the job names them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from emp_orch import settings
from emp_orch.jobs.document.model import InputSource
from emp_orch.layout import Layout
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from support.redis.server import Server, running_server
from support.worker.cli import emp, write_settings
from support.worker.processes import KEYS

WORKFLOW = '{"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("valkey", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await made.aclose()


@pytest.fixture
def folder(tmp_path: Path, server: Server, r: Client) -> Path:
    write_settings(tmp_path, server.url)
    limits = settings.InputLimits(hosts=("images.example.org",), max_bytes=1000)
    settings.save(layout := Layout(tmp_path), msgspec.structs.replace(settings.load(layout), inputs=limits))
    (tmp_path / "x.png").write_bytes(b"picture")
    (tmp_path / "frames" / "b").mkdir(parents=True)
    (tmp_path / "frames" / "1.png").write_bytes(b"one")
    (tmp_path / "frames" / "b" / "2.png").write_bytes(b"two")
    (tmp_path / "frames" / ".DS_Store").write_bytes(b"")
    return tmp_path


def asset(data: bytes) -> InputSource:
    return InputSource(asset=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


async def run(folder: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(emp, folder, *argv, stdin=stdin)


async def test_files_and_folders_become_assets(folder: Path, r: Client) -> None:
    done = await run(folder, "submit", "s", "--id", "j", "--input", "photo.png=@x.png", "--input", "@frames/")
    assert (done.returncode, done.stdout) == (0, "j\n"), done.stderr
    job = await Queue(r, KEYS).get("j")
    assert job.inputs == {"photo.png": asset(b"picture"), "1.png": asset(b"one"), "b/2.png": asset(b"two")}
    file = folder / ".emp" / "artifacts" / ".assets" / asset(b"picture").asset.removeprefix("sha256:")
    assert file.read_bytes() == b"picture"
    again = asset(b"picture").asset
    for text, source in (
        ("seq=@frames", {"seq/1.png": asset(b"one"), "seq/b/2.png": asset(b"two")}),
        ("@x.png", {"x.png": asset(b"picture")}),
        (f"a=asset:{again}", {"a": asset(b"picture")}),
        (f"a={again}", {"a": asset(b"picture")}),
        ("a=data:image/png;base64,aGk=", {"a": asset(b"hi")}),
        ("a=job:j/b.png", {"a": InputSource(job="j", output="b.png")}),
        ("a=https://images.example.org/a?k=1", {"a": InputSource(url="https://images.example.org/a?k=1")}),
    ):
        done = await run(folder, "submit", "s", "--input", text)
        assert done.returncode == 0, done.stderr
        assert (await Queue(r, KEYS).get(done.stdout.strip())).inputs == source, text
    shown = await run(folder, "jobs", "show", done.stdout.strip())
    assert "input" in shown.stdout and "https://images.example.org/a?…" in shown.stdout
    told = json.loads((await run(folder, "jobs", "show", "--json", done.stdout.strip())).stdout)
    assert told["inputs"] == {"a": {"url": "https://images.example.org/a?…"}}


async def test_what_cannot_be_had_is_told_and_nothing_is_queued(folder: Path, r: Client) -> None:
    (folder / "big.bin").write_bytes(bytes(1001))
    for argv, error in (
        (("--input", "a=@nothing.png"), "inputs.a.file: " + str(folder / "nothing.png") + " is not there"),
        (("--input", "a=x.png"), "a file is written with @: a=@x.png"),
        (("--input", "a"), "is not NAME=@FILE"),
        (("--input", "a=@x.png", "--input", "a=@x.png"), "--input names a twice"),
        (("--input", "../a=@x.png"), "inputs: '../a': expected a relative path"),
        (("--input", "a=@big.bin"), "a is larger than 1000 bytes"),
        (("--input", "a=https://evil.org/x"), "evil.org is not one of jobs.inputs.hosts"),
        (("--input", "a=asset:sha256:" + "0" * 64), "no such asset: inputs.a"),
        (("--payload", WORKFLOW, "--input", "foto.png=@x.png"), "no node's input says foto.png"),
    ):
        done = await run(folder, "submit", "s", *argv)
        assert done.returncode in (1, 2) and error in done.stderr.replace("\n", " "), (argv, done.stderr)
    assert not await r.exists(KEYS.jobs)


async def test_a_file_of_jobs_names_files_beside_it(folder: Path, r: Client) -> None:
    (folder / "frames" / "jobs.jsonl").write_text(
        '{"service": "s", "id": "a", "inputs": {"p": {"file": "1.png"}}}\n{"service": "s", "id": "b"}\n'
    )
    done = await run(folder, "submit", "-f", "frames/jobs.jsonl")
    assert done.returncode == 0 and "2 jobs queued" in done.stderr, done.stderr
    assert (await Queue(r, KEYS).get("a")).inputs == {"p": asset(b"one")}
    line = '{"service": "s", "id": "c", "inputs": {"p": {"file": "x.png"}}}\n'
    assert (await run(folder, "submit", "-f", "-", stdin=line)).returncode == 0
    assert (await Queue(r, KEYS).get("c")).inputs == {"p": asset(b"picture")}
    (folder / "bad.jsonl").write_text('{"service": "s"}\n{"service": "s", "inputs": {"p": {"file": "gone"}}}\n')
    done = await run(folder, "submit", "-f", "bad.jsonl")
    assert done.returncode == 2 and "nothing was queued: bad.jsonl:2: inputs.p.file:" in done.stderr, done.stderr
