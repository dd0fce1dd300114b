"""What a login may not do is found out without doing anything, on Redis and on Valkey."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from emp_orch.store.acl.rights import TRANSACTION, Lacks, all_channels, all_keys, commands, lacking, name_of
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server
from support.tree import ROOT

DOC = ROOT / "docs" / "redis.md"
KEYS = Keys("mine:")


@pytest.fixture
async def admin(r: Client) -> AsyncIterator[Client]:
    yield r
    await r.execute_command("ACL", "DELUSER", "some")


async def seen(admin: Client, server: Server, *rules: str) -> Lacks:
    await admin.execute_command("ACL", "SETUSER", "some", "reset", "on", ">p/w", *rules)
    url = server.url.replace("//", "//some:p%2Fw@")
    async with client(url) as r:
        return await lacking(r, KEYS, url)


def documented() -> list[str]:
    found = re.search(r"^ACL SETUSER emp (.+?)\n```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    words = found[1].replace("\\\n", " ").replace("PREFIX", "mine:").split()
    return [word for word in words if word[0] in "~&+"]


async def test_what_is_documented_is_enough_and_nothing_is_done(admin: Client, server: Server) -> None:
    found = await seen(admin, server, *documented())
    assert (found.words, found.rules) == ("", ())
    assert await admin.dbsize() == 0
    assert (await seen(admin, server, "~*", "&*", "+@all")).words == ""


async def test_each_is_named_with_its_rule(admin: Client, server: Server) -> None:
    found = await seen(admin, server, *documented(), "-zadd", "-script|load", "-publish")
    assert found.words == "run PUBLISH, SCRIPT LOAD, ZADD"
    assert found.way_out.startswith("ACL SETUSER some +publish +script|load +zadd; ")
    found = await seen(admin, server, "~mine:jobs*", "&mine:*", "+@all")
    assert "mine:machines" in found.keys and "mine:jobs" not in found.keys and found.rules == ("~mine:*",)
    assert "and " in found.words and found.commands == ()
    found = await seen(admin, server, "~*", "resetchannels", "+@all")
    assert found.words == "use the channels mine:machine:startup:events, mine:preview:x"
    assert found.rules == ("&mine:*",)
    assert (await seen(admin, server, "~*", "&*", "+@all", "-multi")).words == "run MULTI, EXEC, DISCARD"


async def test_a_right_to_read_only(admin: Client, server: Server) -> None:
    if "valkey_version" not in (info := await admin.info("server")) and int(info["redis_version"].split(".")[0]) < 7:
        pytest.skip("before Redis 7 a key is not only read")
    found = await seen(admin, server, "%R~mine:*", "&*", "+@all")
    assert set(found.keys) == set(all_keys(KEYS))


def test_the_document_says_the_same() -> None:
    told = {word[1:] for word in documented() if word[0] == "+"}
    tried = {name_of(c) for c in commands("k", "c")} | {t.lower() for t in TRANSACTION}
    assert told - tried == {"auth", "hello", "info", "client|setname"}, "to connect, and what emp can go without"
    assert tried <= told


def test_every_key_and_channel_is_tried() -> None:
    assert {"mine:machines", "mine:job:x", "mine:fleet:x:spec:1", "mine:jobs:mark"} <= set(all_keys(KEYS))
    assert all_channels(KEYS) == ["mine:preview:x", "mine:machine:startup:events"]
