"""One suite for every artifact store: a local folder, fsspec's memory, and that with the signatures of s3fs."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from msgspec.structs import replace

from emp_orch.jobs.document.model import Output
from emp_orch.store.artifacts import run as artifact_run
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import BadArtifactsUrl, CannotStore, NoSuchArtifact, local_url, without_login
from support.redis.server import until


async def chunks_of(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def content(store: Artifacts, job_id: str, output: Output, **span: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(job_id, output, **span)])


def names_in(store: Artifacts) -> list[str]:
    """Every file there, hidden ones too."""
    return sorted(store._fs.find(store._root))


class Far(MemoryFileSystem):  # type: ignore[misc]
    """Memory that takes its arguments as s3fs does, which has `version_id` before the range."""

    protocol = "far"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("far:/")))

    def cat_file(self, path: str, version_id: str | None = None, **span: int | None) -> bytes:
        assert version_id is None
        return bytes(super().cat_file(path, **span))


fsspec.register_implementation("far", Far)


@pytest.fixture(params=["file", "memory", "far"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "file":
        return Artifacts(local_url(tmp_path / "a [b] c" / "store"))
    return Artifacts(f"{request.param}://{secrets.token_hex(4)}/store")


async def test_what_was_saved_is_read_back(store: Artifacts) -> None:
    data = secrets.token_bytes(1024 * 1024)
    output = await store.run("job-1", "1-ab").save("a.png", "image/png", chunks_of(data))
    assert output == Output(
        name="a.png",
        content_type="image/png",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        path="1-ab/a.png",
    )
    assert await content(store, "job-1", output) == data
    assert await content(store, "job-1", output, start=5, stop=700_000) == data[5:700_000]
    assert await content(store, "job-1", output, start=len(data) - 1, stop=2 * len(data)) == data[-1:]


async def test_an_empty_output_is_one_too(store: Artifacts) -> None:
    output = await store.run("j", "1").save("empty", "", chunks_of(b""))
    assert (output.size, output.content_type) == (0, "application/octet-stream")
    assert await content(store, "j", output) == b""


async def test_equal_names_within_a_run_stay_apart(store: Artifacts) -> None:
    run = store.run("j", "1")
    saved = [await run.save("x/a.png", "image/png", chunks_of(bytes([n]))) for n in range(3)]
    assert [o.name for o in saved] == ["x_a.png", "x_a-2.png", "x_a-3.png"]
    assert [await content(store, "j", o) for o in saved] == [b"\0", b"\1", b"\2"]


async def test_runs_do_not_touch_each_other(store: Artifacts) -> None:
    first, second = store.run("j", "1-a"), store.run("j", "2-b")
    one = await first.save("a", "text/plain", chunks_of(b"one"))
    two = await second.save("a", "text/plain", chunks_of(b"two"))
    assert await content(store, "j", one) == b"one" and await content(store, "j", two) == b"two"


async def test_deleting_takes_all_runs_and_no_other_job(store: Artifacts) -> None:
    kept = await store.run("job-10", "1").save("a", "text/plain", chunks_of(b"kept"))
    gone = [await store.run("job-1", r).save("a", "text/plain", chunks_of(b"x")) for r in ("1", "2")]
    await store.delete("job-1")
    await store.delete("job-1")
    await store.delete("never-was")
    for output in gone:
        with pytest.raises(NoSuchArtifact):
            await content(store, "job-1", output)
    assert await content(store, "job-10", kept) == b"kept"
    assert len(names_in(store)) == 1


async def test_a_source_that_breaks_leaves_nothing(store: Artifacts) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield secrets.token_bytes(600_000)
        raise ConnectionResetError("gone")

    run = store.run("j", "1")
    with pytest.raises(ConnectionResetError, match="gone"):
        await run.save("a.png", "image/png", broken())
    assert names_in(store) == []
    again = await run.save("a.png", "image/png", chunks_of(b"x"))
    assert again.name == "a.png", "a second try gets the same name"


async def test_a_cancelled_save_leaves_nothing(store: Artifacts) -> None:
    written, never = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield secrets.token_bytes(600_000)
        written.set()
        await never.wait()

    task = asyncio.create_task(store.run("j", "1").save("a", "text/plain", stuck()))
    await written.wait()
    assert len(names_in(store)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names_in(store) == []


@pytest.mark.parametrize("step", ["open", "write"])
async def test_a_save_cancelled_twice_while_the_store_hangs_leaves_nothing(
    store: Artifacts, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A second cancellation, as of a shutdown behind a timeout, does not wait for the thread."""
    hangs, on, handles = threading.Event(), threading.Event(), []
    real_open = store._fs.open

    def hang() -> None:
        hangs.set()
        assert on.wait(20)

    def after_a_while(write: Callable[[bytes], int], data: bytes) -> int:
        hang()
        return write(data)

    def slow_open(*args: Any, **kwargs: Any) -> Any:
        if step == "open":
            hang()
        handle = real_open(*args, **kwargs)
        handles.append(handle)
        if step == "write":
            real_write = handle.write
            handle = SimpleNamespace(write=partial(after_a_while, real_write), close=handle.close)
        return handle

    monkeypatch.setattr(store._fs, "open", slow_open)
    task = asyncio.create_task(store.run("j", "1").save("a", "text/plain", chunks_of(bytes(600_000))))
    await asyncio.to_thread(hangs.wait, 20)
    for _ in range(2):
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
    on.set()
    await asyncio.wait([task])
    assert task.cancelled()

    async def clean() -> bool:
        # A file of fsspec's memory cannot be closed.
        return len(handles) == 1 and (handles[0].closed or not store._local) and names_in(store) == []

    await until(clean)


async def test_one_output_has_a_limit(store: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_run, "MAX_OUTPUT_BYTES", 300_000)
    await store.run("j", "1").save("a", "text/plain", chunks_of(bytes(300_000)))
    with pytest.raises(CannotStore, match="larger than 300000 bytes") as caught:
        await store.run("j", "2").save("a", "text/plain", chunks_of(bytes(300_001)))
    assert not caught.value.retryable
    assert len(names_in(store)) == 1


async def test_a_changed_file_is_not_passed_off_as_the_output(store: Artifacts) -> None:
    output = await store.run("j", "1").save("a", "text/plain", chunks_of(b"four"))
    with pytest.raises(NoSuchArtifact, match="4 bytes, 5 were recorded"):
        await content(store, "j", replace(output, size=5))


async def test_the_check_leaves_no_trace(store: Artifacts) -> None:
    await store.check()
    assert names_in(store) == []


@pytest.mark.parametrize(
    "path", ["../x/a", "1/../a", "/etc/passwd", "1/.hidden", "1", "1/", "1/a/b", "..", "1//a", "1/a\n"]
)
async def test_a_record_cannot_lead_out_of_its_folder(store: Artifacts, path: str) -> None:
    output = await store.run("j", "1").save("a", "text/plain", chunks_of(b"x"))
    for job_id, wrong in (("j", replace(output, path=path)), ("../j", output), (".", output), ("j/1", output)):
        with pytest.raises(NoSuchArtifact, match="damaged"):
            await content(store, job_id, wrong)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".a", "a*", "a\n", "é", "x" * 201])
async def test_odd_ids_make_no_folder(store: Artifacts, name: str) -> None:
    for made in ((name, "1"), ("j", name)):
        with pytest.raises(CannotStore):
            store.run(*made)
    with pytest.raises(CannotStore):
        await store.delete(name)


async def test_a_run_may_be_prepared_before_there_is_an_output(store: Artifacts) -> None:
    run = store.run("j", "1")
    await run.prepare()
    assert names_in(store) == []
    output = await run.save("a", "text/plain", chunks_of(b"x"))
    assert await content(store, "j", output) == b"x"


async def test_a_link_is_not_followed_to_prepare_a_run(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "j").symlink_to(tmp_path / "outside")
    await Artifacts(local_url(tmp_path / "store")).run("j", "1").prepare()
    assert list((tmp_path / "outside").iterdir()) == []


async def test_links_do_not_lead_out(tmp_path: Path) -> None:
    store, outside = Artifacts(local_url(tmp_path / "store")), tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    secret = outside / "1" / "a"
    secret.write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "j").symlink_to(outside)
    output = Output(name="a", content_type="text/plain", size=6, sha256="0" * 64, path="1/a")
    with pytest.raises(NoSuchArtifact, match="leads out"):
        await content(store, "j", output)
    with pytest.raises(CannotStore, match="leads out"):
        await store.run("j", "1").save("b", "text/plain", chunks_of(b"x"))
    (tmp_path / "store" / "k" / "1").mkdir(parents=True)
    (tmp_path / "store" / "k" / "1" / "a").symlink_to(secret)
    with pytest.raises(NoSuchArtifact, match="leads out"):
        await content(store, "k", output)
    await store.delete("j")
    await store.delete("k")
    assert secret.read_bytes() == b"secret" and list((tmp_path / "store").iterdir()) == []


async def test_a_store_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    store = Artifacts(local_url(tmp_path / "link"))
    output = await store.run("j", "1").save("a", "text/plain", chunks_of(b"x"))
    assert await content(store, "j", output) == b"x" and (tmp_path / "disk" / "j" / "1" / "a").exists()


async def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC; the run's temporary file is led there."""
    store = Artifacts(local_url(tmp_path))
    writing = store.writing("j", "1")
    writing.begin()
    writing._handle.close()
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as caught:
        writing._handle = full
        writing.write(b"x")
    writing.discard()
    error = store.cannot_store(caught.value, "a.png was not saved")
    assert error.retryable and error.message == f"a.png was not saved: no space left in file://{tmp_path}"
    assert names_in(store) == []


async def test_a_folder_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("I am a file")
    store = Artifacts(local_url(tmp_path / "store"))
    with pytest.raises(CannotStore, match="a was not saved") as caught:
        await store.run("j", "1").save("a", "text/plain", chunks_of(b"x"))
    assert caught.value.retryable
    with pytest.raises(CannotStore, match="does not work"):
        await store.check()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is not the URL"),
        ("/data", "is not the URL"),
        ("file://data", "from the root on"),
        ("nope://x/y", "Protocol not known"),
        ("s3://key:hunter2@bucket/x", "holds a password"),
        ("memory://x/a*b", "pattern character"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(BadArtifactsUrl, match=words) as caught:
        Artifacts(url)
    assert caught.value.hint and "hunter2" not in str(caught.value)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(BadArtifactsUrl, match="package that is not installed") as caught:
        Artifacts("oss://bucket/x")
    assert "ossfs" in caught.value.hint


def test_a_url_is_shown_without_its_login() -> None:
    assert without_login("s3://k:s@b/x@y") == "s3://***@b/x@y"
    assert without_login("file:///a@b") == "file:///a@b"
