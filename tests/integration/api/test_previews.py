"""A run's pictures reach whoever looks at the job, through the real API; nobody else pays for them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emp_orch.jobs.document.preview import MAX_PREVIEW_BYTES, Preview, is_shown
from support.http.sse import stream
from support.http.stack import Producer, Stack
from support.redis.server import until
from support.worker.painter import Painter, painting

HEADS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF\0\0\0\0WEBP"}


def picture(word: str, kind: str = "image/png") -> bytes:
    return HEADS[kind] + word.encode()


def show(painter: Painter, word: str, kind: str = "image/png") -> None:
    painter.shown.put_nowait((kind, picture(word, kind)))


async def test_the_stream_and_the_endpoint_show_them(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession, tmp_path: Path
) -> None:
    painter = Painter()
    async with painting(producer, tmp_path, painter) as job_id:
        show(painter, "one")
        # Who comes later is shown what there is.
        async with stream(http_stack.monitor, f"/api/jobs/{job_id}/progress?preview=1") as reader:
            _, data = await reader.until(lambda e, _: e.event == "preview")
            assert data == {"job_id": job_id, "image": "data:image/png;base64," + encoded(picture("one"))}
            show(painter, "two", "image/webp")
            _, data = await reader.until(lambda e, _: e.event == "preview")
            assert data["image"] == "data:image/webp;base64," + encoded(picture("two", "image/webp"))
            async with api.get(f"/api/jobs/{job_id}/preview") as answer:
                assert answer.status == 200 and await answer.read() == picture("two", "image/webp")
                assert answer.headers["Content-Type"] == "image/webp"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"
                tag = answer.headers["ETag"]
            asked = asyncio.create_task(
                api.get(f"/api/jobs/{job_id}/preview", headers={"If-None-Match": tag}).__aenter__()
            )
            show(painter, "three")
            answer = await asked
            assert answer.status == 200 and await answer.read() == picture("three")
            tag = answer.headers["ETag"]
            async with api.get(f"/api/jobs/{job_id}/preview", headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
            # Without preview=1 nobody is sent any.
            async with stream(http_stack.api, f"/api/jobs/{job_id}/progress") as other:
                await other.until(lambda e, _: e.event == "job")
                show(painter, "four")
                await reader.until(lambda e, _: e.event == "preview")
                assert b"event: preview" not in other.raw
    async with api.get(f"/api/jobs/{job_id}/preview") as answer:
        assert answer.status == 204
    async with api.get("/api/jobs/none/preview") as answer:
        assert answer.status == 404


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_nothing_is_kept_and_nobody_pays_who_does_not_look(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession, tmp_path: Path
) -> None:
    r, painter = producer.redis, Painter()
    async with painting(producer, tmp_path, painter) as job_id:
        await r.config_resetstat()
        await asyncio.sleep(1.2)  # a run without a picture asks nothing
        stats = await r.info("commandstats")
        assert "cmdstat_publish" not in stats and "cmdstat_pubsub|numsub" not in stats
        for n in range(50):
            show(painter, f"unseen {n}")

        async def asked() -> bool:
            return "cmdstat_pubsub|numsub" in await r.info("commandstats")

        await until(asked)
        stats = await r.info("commandstats")
        assert "cmdstat_publish" not in stats and stats["cmdstat_pubsub|numsub"]["calls"] <= 2
        async with api.get(f"/api/jobs/{job_id}/preview") as answer:
            assert await answer.read() == picture("unseen 49")
        async for key in r.scan_iter():
            assert "preview" not in key
        assert "unseen" not in str(await r.xrange(producer.keys.events))


async def test_at_most_two_a_second(producer: Producer, http_stack: Stack, tmp_path: Path) -> None:
    painter, came = Painter(), 0
    async with painting(producer, tmp_path, painter) as job_id, producer.redis.pubsub() as heard:
        await heard.subscribe(producer.keys.preview_channel(job_id))
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.2
        while loop.time() < end:
            show(painter, f"{loop.time()}")
            message = await heard.get_message(ignore_subscribe_messages=True, timeout=0.02)
            came += message is not None
    assert 3 <= came <= 5


async def test_a_hostile_picture_goes_no_further(
    http_stack: Stack, producer: Producer, api: aiohttp.ClientSession, tmp_path: Path
) -> None:
    painter = Painter()
    async with painting(producer, tmp_path, painter) as job_id:
        channel = producer.keys.preview_channel(job_id)
        asked = asyncio.create_task(api.get(f"/api/jobs/{job_id}/preview").__aenter__())
        await until(lambda: subscribed(producer, channel))
        for message in (
            "no JSON",
            '{"content_type":"text/html","data":"PHNjcmlwdD4="}',
            '{"content_type":"image/png","data":"PHNjcmlwdD4="}',
            "[" * 5_000,
        ):
            await producer.redis.publish(channel, message)
        answer = await asked
        assert answer.status == 204


async def subscribed(producer: Producer, channel: str) -> bool:
    ((_, count),) = await producer.redis.pubsub_numsub(channel)
    return bool(count)


@pytest.mark.parametrize(
    ("kind", "data", "shown"),
    [
        *[(kind, picture("x", kind), True) for kind in HEADS],
        ("image/png", picture("x", "image/jpeg"), False),
        ("image/svg+xml", b"<svg/>", False),
        ("image/webp", b"RIFF\0\0\0\0WAVE", False),
        ("image/png", b"", False),
        ("image/jpeg", picture("x", "image/jpeg") + bytes(MAX_PREVIEW_BYTES), False),
    ],
)
def test_what_is_shown(kind: str, data: bytes, shown: Any) -> None:
    assert is_shown(Preview(content_type=kind, data=data)) is shown
