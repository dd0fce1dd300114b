"""Outputs over HTTP, from a real store, through the API and through the monitor's proxy."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

import aiohttp
import pytest

from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.queue.submit import Queue
from support.http.outputs import completed
from support.http.stack import Producer, Stack

PICTURE = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(1024 * 1024)


@pytest.mark.parametrize("of", ["api", "monitor"])
async def test_an_output_is_listed_and_comes_whole(http_stack: Stack, producer: Producer, of: str) -> None:
    job_id = await completed(http_stack, producer, ("a b ü.png", "image/png", PICTURE))
    async with aiohttp.ClientSession(getattr(http_stack, of)) as http:
        async with http.get(f"/api/jobs/{job_id}/artifacts") as response:
            (listed,) = (await response.json())["data"]
        async with http.get(f"/api/jobs/{job_id}") as response:
            assert (await response.json())["data"]["result"]["outputs"] == [listed]
        sha256 = hashlib.sha256(PICTURE).hexdigest()
        assert (listed["name"], listed["size"], listed["sha256"]) == ("a b ü.png", len(PICTURE), sha256)
        assert listed["url"] == f"/api/jobs/{job_id}/artifacts/a%20b%20%C3%BC.png"
        async with http.get(listed["url"]) as response:
            assert response.status == 200 and await response.read() == PICTURE
            told = response.headers
        assert (told["Content-Type"], told["ETag"]) == ("image/png", f'"{sha256}"')
        assert (told["X-Content-Type-Options"], told["Content-Security-Policy"]) == (
            "nosniff",
            "sandbox; default-src 'none'",
        )
        assert told["Content-Disposition"] == "inline; filename=\"a b _.png\"; filename*=UTF-8''a%20b%20%C3%BC.png"
        async with http.get(listed["url"], headers={"If-None-Match": told["ETag"]}) as response:
            assert response.status == 304 and await response.read() == b""
        async with http.get(listed["url"], headers={"If-None-Match": '"other"'}) as response:
            assert response.status == 200
        async with http.head(listed["url"]) as response:
            assert response.status == 200 and await response.read() == b""


async def test_head_and_ranges(http_stack: Stack, producer: Producer, api: aiohttp.ClientSession) -> None:
    job_id = await completed(http_stack, producer, ("a.txt", "text/plain", b"0123456789"))
    url = f"/api/jobs/{job_id}/artifacts/a.txt"
    async with api.head(url) as response:
        assert response.headers["Content-Length"] == "10" and response.headers["Accept-Ranges"] == "bytes"
    for asked, status, body, told in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-", 200, b"0123456789", None),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        async with api.get(url, headers={"Range": asked}) as response:
            found = (response.status, await response.read(), response.headers.get("Content-Range"))
            assert found == (status, body, told), asked
    async with api.get(url, headers={"Range": "bytes=10-"}) as response:
        assert response.status == 416 and response.headers["Content-Range"] == "bytes */10"
    async with api.get(url, headers={"Range": "bytes=2-4", "If-Range": '"older"'}) as response:
        assert response.status == 200


# What a service said, what the API says, and how a browser is to take it.
TYPES = (
    ("image/png", "image/png", "inline"),
    ("video/mp4", "video/mp4", "inline"),
    ("audio/flac", "audio/flac", "inline"),
    ("text/plain; charset=utf-8", "text/plain; charset=utf-8", "inline"),
    ("image/svg+xml", "image/svg+xml", "attachment"),
    ("IMAGE/SVG+XML", "image/svg+xml", "attachment"),
    ("text/html", "text/html", "attachment"),
    ("text/html\r\nSet-Cookie: a=b", "text/html", "attachment"),
    ("model/gltf-binary", "model/gltf-binary", "attachment"),
    ("", "application/octet-stream", "attachment"),
    ("nonsense", "application/octet-stream", "attachment"),
)


async def test_no_browser_runs_an_output(http_stack: Stack, producer: Producer, api: aiohttp.ClientSession) -> None:
    script = b"<script>alert(1)</script>"
    job_id = await completed(http_stack, producer, *((str(i), kind, script) for i, (kind, _, _) in enumerate(TYPES)))
    for i, (kind, told, shown) in enumerate(TYPES):
        async with api.get(f"/api/jobs/{job_id}/artifacts/{i}") as response:
            headers = response.headers
        assert (headers["Content-Type"], headers["Content-Disposition"].partition(";")[0]) == (told, shown), kind
        assert headers["X-Content-Type-Options"] == "nosniff" and "Set-Cookie" not in headers


async def test_what_is_not_there(http_stack: Stack, producer: Producer, api: aiohttp.ClientSession) -> None:
    outside = http_stack.layout.root / "secret"
    outside.write_text("secret")
    forged = Output(name="forged", content_type="text/plain", size=6, sha256="0" * 64, path="../../../../secret")
    odd = Output(name='a"\r\nX: y', content_type="a\nb", size=1, sha256="no", path="1-test/a")
    job_id = await completed(
        http_stack, producer, ("a", "text/plain", b"a"), ("b", "text/plain", b"b"), forged=(forged, odd)
    )
    for path, status, words in (
        (f"/api/jobs/{job_id}/artifacts/c", 404, "no output of that name"),
        (f"/api/jobs/{job_id}/artifacts/..%2F..%2Fsecret", 404, ""),
        (f"/api/jobs/{job_id}/artifacts/forged", 410, "damaged"),
        (f"/api/jobs/{job_id}/artifacts/a%22%0D%0AX:%20y", 410, "damaged"),
        ("/api/jobs/unknown/artifacts", 404, "unknown"),
        ("/api/jobs/unknown/artifacts/a", 404, "unknown"),
        ("/api/jobs/..%2Fx/artifacts/a", 400, "id"),
    ):
        async with api.get(path) as response:
            body = await response.json()
            assert response.status == status and words in body["error"] and "X" not in response.headers, (path, body)
    folder = Path(http_stack.layout.artifacts) / job_id / "1-test"
    (folder / "a").unlink()
    (folder / "b").write_bytes(b"longer")
    async with api.get(f"/api/jobs/{job_id}/artifacts/a") as response:
        assert response.status == 410 and " was deleted from file:///" in (await response.json())["error"]
    async with api.head(f"/api/jobs/{job_id}/artifacts/a") as response:
        assert response.status == 410
    async with api.get(f"/api/jobs/{job_id}/artifacts/b") as response:
        assert response.status == 410 and "not the file" in (await response.json())["error"]
    for gone, words in (
        (folder, "nothing of run 1-test of job"),
        (http_stack.layout.artifacts, f"there is no {http_stack.settings.artifacts}; was the artifact store moved"),
    ):
        shutil.rmtree(gone)
        async with api.get(f"/api/jobs/{job_id}/artifacts/a") as response:
            assert response.status == 410 and words in (await response.json())["error"]
    waiting = (await Queue(producer.redis, producer.keys).submit(parse_submission({"service": "x"}))).job_id
    async with api.get(f"/api/jobs/{waiting}/artifacts") as response:
        assert (response.status, (await response.json())["data"]) == (200, [])


async def test_a_download_that_is_cut_short_is_seen_to_be(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession
) -> None:
    size = 64 * 1024 * 1024
    job_id = await completed(http_stack, producer, ("big", "video/mp4", bytes(size)))
    file = http_stack.layout.artifacts / job_id / "1-test" / "big"
    with pytest.raises(aiohttp.ClientPayloadError):
        async with api.get(f"/api/jobs/{job_id}/artifacts/big") as response:
            await response.content.readexactly(1024)
            with file.open("r+b") as f:
                f.truncate(1)
            await response.read()
    async with api.get("/health") as response:
        assert response.status == 200
