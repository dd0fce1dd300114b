"""What a running job looks like by now, in its dialog: while it runs, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from emp_orch.services.simulation.png import Picture, encode
from support.http.browser import SOON_MS, Watched, populate, problems
from support.http.stack import Producer, Stack
from support.worker.painter import Painter, painting

pytestmark = pytest.mark.asyncio(loop_scope="module")


def coloured(rgb: tuple[int, int, int], width: int = 96) -> bytes:
    return encode(Picture(width=width, height=64, rgb=bytes(rgb) * (width * 64)))


async def test_a_running_job_shows_its_picture_until_its_end(
    watched: Watched, http_stack: Stack, producer: Producer, tmp_path: Path
) -> None:
    await populate(producer)
    painter = Painter()
    async with painting(producer, tmp_path, painter) as job_id:
        page = await watched.open(http_stack, "#/jobs")
        await page.locator(f"#jobs [data-job='{job_id}'] button").click(timeout=SOON_MS)
        dialog = page.get_by_role("dialog")
        await expect(dialog.locator("#job")).to_have_attribute("data-status", "in_progress", timeout=SOON_MS)
        await expect(dialog.locator("img.preview")).to_have_count(0)
        painter.shown.put_nowait(("image/png", coloured((200, 60, 30))))
        await expect(dialog.locator("img.preview")).to_have_js_property("naturalWidth", 96, timeout=SOON_MS)
        painter.shown.put_nowait(("image/png", coloured((30, 60, 200), width=128)))
        await expect(dialog.locator("img.preview")).to_have_js_property("naturalWidth", 128, timeout=SOON_MS)
        assert await problems(page) == []
    await expect(dialog.locator("#job")).to_have_attribute("data-status", "completed", timeout=SOON_MS)
    await expect(dialog.locator("img.preview")).to_have_count(0)
    assert watched.complaints == []
