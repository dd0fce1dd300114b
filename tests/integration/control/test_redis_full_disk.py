"""The embedded Redis on a full disk: it says why it takes no writes, starts again when it ends, and then goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from emp_orch.control.plane.embedded import prepared
from emp_orch.layout import Layout
from emp_orch.settings import Listen, Settings
from emp_orch.store.redis.refusals import refusal_of
from support.host.small_disk import SmallDisk, small_disk
from support.redis.server import embedded_server, eventually, free_port


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 20) as disk:
        yield disk


def said(r: redis.Redis) -> str:
    """Why it takes no writes; empty when it does."""
    try:
        r.set("key", "x" * 10_000)
    except redis.RedisError as e:
        found = refusal_of(e)
        return found.says if found else repr(e)
    return ""


def test_it_ends_and_starts_again_on_a_full_disk(disk: SmallDisk) -> None:
    port, layout = free_port(), Layout(disk.folder)
    listen, url = Listen(host="127.0.0.1", port=1), f"redis://127.0.0.1:{port}/0"
    settings = Settings(
        fleet="f",
        redis_url=url,
        machine_redis_url=url,
        embedded=True,
        redis_port=port,
        prefix="",
        artifacts=layout.artifacts_url,
        api=listen,
        monitor=listen,
    )
    layout.state.mkdir()
    why = "takes no writes, because it cannot write to its disk (MISCONF): No space left on device"
    with embedded_server(prepared(layout, settings), port) as r:
        r.set("kept", "1")
        disk.fill()
        eventually(lambda: said(r) == why)
    with embedded_server(prepared(layout, settings), port) as r:
        assert r.get("kept") == "1"
        eventually(lambda: said(r) == why)
        disk.empty()
        eventually(lambda: said(r) == "")
