"""Clients that ask sentinels for the primary: real servers, real sentinels, a primary that dies and one that hangs."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from emp_orch.errors import Unreachable
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis import client as connect
from emp_orch.store.redis.client import TRANSIENT, client, connected
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Bell, Pipelined
from support.redis.sentinel import NAME, Watched, watched_by_sentinels
from support.redis.server import until


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_by_sentinels(tmp_path_factory.mktemp("sentinel")) as made:
        yield made


async def why(url: str) -> tuple[str, str]:
    with pytest.raises(Unreachable) as caught:
        async with connected(url):
            pass
    return caught.value.message, caught.value.hint


async def test_what_is_wrong_with_the_way_is_named_with_its_fix(watched: Watched) -> None:
    async with connected(watched.url) as r:
        assert (await r.role())[0] == "master"
    first, server = watched.sentinels[0], watched.servers[0].port
    said, way_out = await why(watched.url.replace(NAME, "other"))
    assert f"the sentinel at 127.0.0.1:{first} knows no other, but {NAME}" in said and "NAME/DATABASE" in way_out
    said, way_out = await why(f"redis+sentinel://127.0.0.1:{server}/{NAME}/0")
    assert f"what answers at 127.0.0.1:{server} is no sentinel" in said and "26379" in way_out
    said, _ = await why(f"redis+sentinel://127.0.0.1:1,127.0.0.1:2/{NAME}/0")
    assert "the sentinel at 127.0.0.1:1 does not answer: " in said and "nor do 1 more" in said
    with redis.Redis(port=first) as one:
        one.execute_command("ACL", "SETUSER", "default", "resetpass", ">s p@ce/")
        try:
            said, way_out = await why(f"redis+sentinel://127.0.0.1:{first}/{NAME}/0")
            assert "refused the login" in said and "sentinel_password=PASSWORD" in way_out
            said, way_out = await why(f"redis+sentinel://127.0.0.1:{first}/{NAME}/0?sentinel_password=wrong")
            assert "refused the login" in said and "wrong" not in said + way_out
            async with connected(f"redis+sentinel://127.0.0.1:{first}/{NAME}?sentinel_password=s%20p%40ce%2F") as r:
                assert await r.ping()
        finally:
            with redis.Redis(port=first, password="s p@ce/") as again:
                again.execute_command("ACL", "SETUSER", "default", "nopass")
    # One that is away costs nothing but its turn.
    async with connected(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{first}/{NAME}/0") as r:
        assert await r.ping()


@pytest.mark.parametrize("hangs", [False, True], ids=["dies", "hangs"])
async def test_all_that_a_process_holds_follows_a_failover(watched: Watched, hangs: bool) -> None:
    """One that hangs holds its connections and says nothing on them: only the process itself can leave it."""
    r = client(watched.url, most=4)
    line, bell, keys = Pipelined(r), Bell(r, "bell"), Keys()
    events = Events(r, keys)
    heard: list[str] = []
    listening = r.pubsub()
    await listening.subscribe("channel")

    async def follow() -> None:
        after = "0-0"
        while True:
            with suppress(*TRANSIENT):
                async for batch in events.follow(after):
                    for event in batch:
                        after = event.id
                        heard.append(event.type)
            await asyncio.sleep(0.1)

    async def listen() -> None:
        while True:
            with suppress(*TRANSIENT):
                async for message in listening.listen():
                    heard.append(str(message["data"]))
            await asyncio.sleep(0.1)

    async def tried(what: str) -> bool:
        with suppress(*TRANSIENT, TimeoutError):
            async with connect.within(2):
                return str(await line.call("SET", what, "1")) == "OK"
        return False

    tasks = [asyncio.create_task(follow()), asyncio.create_task(listen())]
    try:
        assert await tried("before")
        old = watched.primary()
        if hangs:
            old.freeze()
        else:
            old.stop()
        assert await until(lambda: tried("after"), within_s=90)
        new = watched.primary()
        assert new.port != old.port

        async def all_heard() -> bool:
            with suppress(*TRANSIENT):
                await events.append_machine("machine_tried", machine_id="m")
                await r.publish("channel", "said")
                await r.rpush("bell", "rung")
            return {"machine_tried", "said"} <= set(heard)

        await until(all_heard, within_s=60)

        async def rung() -> bool:
            with suppress(*TRANSIENT):
                return await bell.wait(1, answer_s=5) == "rung"
            return False

        await until(rung, within_s=60)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.aclose()
        await line.aclose()
        await bell.aclose()
        await r.aclose()
        if hangs:
            old.thaw()
        else:
            old.start()
        await until(lambda: asyncio.to_thread(watched.in_step), within_s=60)


def test_validate_names_what_is_wrong_with_a_url_of_sentinels(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(tmp_path)]
    subprocess.run([*argv, "init"], check=True, capture_output=True)
    file = tmp_path / "emp.yaml"
    text = file.read_text()
    for url, says in (
        ("redis+sentinel://a:26379,b:99999999/mymaster/0", "expected sentinels as HOST:PORT,HOST:PORT in the URL"),
        ("redis+sentinel://a:26379,b:26379", "expected the name that the sentinels give the primary"),
    ):
        file.write_text(text.replace("url: embedded", f"url: {url}", 1))
        done = subprocess.run([*argv, "validate"], capture_output=True, text=True)
        assert done.returncode != 0 and says in done.stderr + done.stdout
    shutil.rmtree(tmp_path / ".emp", ignore_errors=True)
