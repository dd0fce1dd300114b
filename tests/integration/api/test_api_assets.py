"""Input files over HTTP: uploaded as they come, kept once, named by jobs, through the API and the monitor's proxy."""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
from typing import Any

import aiohttp
import msgspec

from support.http.stack import INPUT_MAX_BYTES, Producer, Stack

PICTURE = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(3 * 1024 * 1024)
DIGEST = f"sha256:{hashlib.sha256(PICTURE).hexdigest()}"
NODE = {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}
WORKFLOW = {"workflow": {"1": NODE, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}}


def form(*files: tuple[str, bytes, str]) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False)  # as browsers and curl
    for name, data, kind in files:
        made.add_field("file", io.BytesIO(data), filename=name, content_type=kind)
    return made


def job(inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"service": "comfyui", "payload": WORKFLOW, "inputs": inputs, **more}


async def post(http: aiohttp.ClientSession, path: str, **what: Any) -> tuple[int, dict[str, Any]]:
    if "json" in what:
        what = {"data": io.BytesIO(msgspec.json.encode(what["json"])), "headers": {"Content-Type": "application/json"}}
    async with http.post(path, **what) as response:
        return response.status, await response.json()


async def test_files_are_kept_once_and_come_back_as_downloads(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession
) -> None:
    async with api.get(f"/api/assets/{DIGEST}") as response:
        assert response.status == 404
    async with aiohttp.ClientSession(http_stack.monitor) as http:  # which passes it on as it comes
        files = (("a ü.png", PICTURE, "image/png"), ("b.txt", b"hi", ""), ("again.png", PICTURE, "image/png"))
        status, told = await post(http, "/api/assets", data=form(*files))
        assert status == 201 and told["success"] and told["assets"] == told["data"]["assets"]
        first, text, again = told["assets"]
        assert (first["asset"], first["name"], first["size"]) == (DIGEST, "a ü.png", len(PICTURE))
        assert first["content_type"] == "image/png" and not again["created"] and again["asset"] == DIGEST
        async with http.get(f"/api/assets/{DIGEST}") as response:
            assert response.status == 200 and await response.read() == PICTURE
            head = response.headers
        assert (head["Content-Disposition"], head["X-Content-Type-Options"]) == ("attachment", "nosniff")
        assert head["Content-Type"] == "application/octet-stream"
        async with api.head(f"/api/assets/{DIGEST.removeprefix('sha256:')}") as response:
            assert response.status == 200 and response.headers["Content-Length"] == str(len(PICTURE))
        async with http.get(f"/api/assets/{text['asset']}", headers={"Range": "bytes=1-"}) as response:
            assert response.status == 206 and await response.read() == b"i"
        for unknown in ("sha256:" + "0" * 64, "x", "..%2f..%2fx"):
            async with http.get(f"/api/assets/{unknown}") as response:
                assert response.status == 404


async def test_what_cannot_be_kept_is_refused(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession
) -> None:
    async with aiohttp.ClientSession(http_stack.monitor) as http:
        for ask in (api, http):
            status, told = await post(ask, "/api/assets", data=form(("big.bin", bytes(INPUT_MAX_BYTES + 1), "")))
            assert status == 413 and told["error"].startswith(f"big.bin is larger than {INPUT_MAX_BYTES} bytes")
    assert list((http_stack.layout.artifacts / ".assets").iterdir()) == []
    words = {"Content-Type": "multipart/form-data; boundary=x"}
    for what, error in (
        ({"json": {}}, "body: expected multipart/form-data"),
        ({"data": b"--x--\r\n", "headers": words}, "body: holds no file"),
        ({"data": b"nonsense", "headers": words}, "body: not multipart/form-data"),
        ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, "body: not multipart/form-data"),
        ({"data": {"name": "value"}, "headers": {}}, "body: expected multipart/form-data"),
        ({"data": form(*[(f"{n}", b"", "") for n in range(65)])}, "body: more than 64 files"),
        # A part's head is read as HTTP, long after the request's own.
        ({"data": b"--x\r\nno header\r\n\r\n.\r\n--x--\r\n", "headers": words}, "the request cannot be read: "),
        ({"data": b'--x\r\nA: "\x17"\r\n\r\n.\r\n--x--\r\n', "headers": words}, "the request cannot be read: "),
        ({"data": b"--x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n.", "headers": words}, "the request cannot be read: "),
    ):
        status, told = await post(api, "/api/assets", **what)
        assert status == 400 and told["error"].startswith(error), told


async def test_a_job_names_its_files_and_redis_never_holds_them(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession
) -> None:
    await post(api, "/api/assets", data=form(("a.png", PICTURE, "image/png")))
    status, told = await post(api, "/api/jobs", json=job({"photo.png": {"asset": DIGEST}}))
    assert status == 201
    async with api.get(f"/api/jobs/{told['job_id']}") as response:
        detail = (await response.json())["data"]
    assert detail["inputs"] == {"photo.png": {"asset": DIGEST, "size": len(PICTURE)}}
    assert detail["payload"] == WORKFLOW, "a worker rewrites its own copy"
    text = base64.b64encode(PICTURE).decode()
    given = {"photo.png": {"base64": f"data:image/png;base64,{text}"}}
    status, told = await post(api, "/api/jobs", json=job(given, id="inline"))
    assert status == 201
    status, told = await post(api, "/api/jobs", json=job(given, id="inline"))
    assert status == 200 and told["data"]["same"], "the same once more changes nothing"
    stored = await producer.redis.hget(producer.keys.jobs, "inline")
    assert stored is not None and len(stored) < 1000 and DIGEST in str(stored)
    async with api.get("/api/jobs/inline") as response:
        assert text[:64] not in await response.text()
    status, told = await post(api, "/api/jobs", json=[job(given), job({"photo.png": {"asset": DIGEST}})])
    assert status == 201 and len(told["job_ids"]) == 2


async def test_a_job_whose_files_cannot_be_had_is_refused(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession
) -> None:
    gone = "sha256:" + "0" * 64
    for inputs, status, error in (
        ({"photo.png": {"asset": gone}}, 409, f"no such asset: inputs.photo.png: {gone}; upload it"),
        (
            {"photo.png": {"url": "https://evil.org/a"}},
            400,
            "inputs.photo.png: evil.org is not one of jobs.inputs.hosts",
        ),
        ({"photo.png": {"file": "/etc/passwd"}}, 400, "inputs.photo.png.file: only `emp submit` reads files"),
        ({"foto.png": {"asset": gone}}, 400, "inputs.foto.png: no node's input says foto.png"),
        ({"../x": {"asset": gone}}, 400, "inputs: '../x': expected a relative path"),
    ):
        found, told = await post(api, "/api/jobs", json=job(inputs))
        assert found == status and error in told["error"], told
    async with api.ws_connect("/ws/client/me") as socket:
        await socket.send_json({"type": "submit_job", "job": job({"photo.png": {"asset": gone}})})
        assert "no such asset" in (await socket.receive_json())["error"]
    url = "https://images.example.org/a.png?sig=hush"
    _, told = await post(api, "/api/jobs", json=job({"photo.png": {"url": url}}))
    async with api.get(f"/api/jobs/{told['job_id']}") as response:
        text = await response.text()
    assert "hush" not in text and "https://images.example.org/a.png?…" in text
