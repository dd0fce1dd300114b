"""A Redis that refuses is named with what is wrong and its own way out, before the first apply touches anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from emp_orch import settings
from emp_orch.control.checks.redis_fitness import refuse_unfit
from emp_orch.control.doctor.facts.redis import read_redis
from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.layout import Layout
from emp_orch.settings import Settings
from emp_orch.store.acl.rights import refused_write
from emp_orch.store.redis.client import Client, client, drop_idle, unreachable
from emp_orch.store.redis.keys import Keys
from support.http.stack import fleet_of
from support.redis.server import Server, eventually, running_server, until
from support.worker.cli import write_settings

MIB = 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await drop_idle(made)
    await made.replicaof("NO", "ONE")
    await made.config_set("maxmemory", 0)
    await made.config_set("maxmemory-policy", "noeviction")
    await made.aclose()


@pytest.fixture
def fleet(tmp_path: Path, server: Server) -> Settings:
    write_settings(tmp_path, server.url)
    return msgspec.structs.replace(settings.load(Layout(tmp_path)), fleet="mine", embedded=False)


async def refused(fleet: Settings, gpus: int = 1, **how: bool) -> tuple[type[EmpError], str, str]:
    with pytest.raises(EmpError) as caught:
        await refuse_unfit(fleet, fleet_of("m1", num_gpus=gpus), **how)
    return type(caught.value), caught.value.message, caught.value.hint


async def test_a_replica_and_a_full_one(r: Client, fleet: Settings) -> None:
    await refuse_unfit(fleet, fleet_of("m1"))
    await r.config_set("maxmemory", 1)
    kind, said, way_out = await refused(fleet)
    assert (kind, "its memory is full (maxmemory)" in said, "emp jobs purge" in way_out) == (Unreachable, True, True)
    await r.config_set("maxmemory", 0)
    await r.replicaof("127.0.0.1", "1")
    kind, said, way_out = await refused(fleet)
    assert (kind, said.endswith(" is a read-only replica")) == (Unreachable, True) and "primary" in way_out


async def test_one_that_cannot_write_to_its_disk(fleet: Settings, tmp_path: Path) -> None:
    with running_server("redis", tmp_path / "disk") as server:
        theirs = msgspec.structs.replace(fleet, redis_url=server.url)
        async with client(server.url) as r:
            await r.config_set("appendonly", "no")
            await r.config_set("save", "3600 1")
            shutil.rmtree(tmp_path / "disk")
            await r.bgsave()

            async def failed() -> bool:
                return (await r.info("persistence"))["rdb_last_bgsave_status"] == "err"

            await until(failed)
        _, said, way_out = await refused(theirs)
        assert "cannot write to its disk (MISCONF)" in said and "free space" in way_out
        with pytest.raises(Unreachable, match="cannot write to its disk"):  # it refuses PING as well
            await looked_at(theirs)


async def looked_at(fleet: Settings) -> str:
    """What status and doctor say of its writes, through a client that cannot write; empty when they are taken."""
    async with client(fleet.redis_url, read_only=True) as reads:
        found = await refused_write(reads, Keys(fleet.prefix))
    doctors = (await read_redis(fleet)).refuses
    assert doctors == found
    return found.words if found else ""


async def test_one_that_only_answers_is_named_by_who_only_looks(r: Client, server: Server, fleet: Settings) -> None:
    assert await looked_at(fleet) == ""
    before = await r.dbsize()
    await r.config_set("maxmemory", 1)
    assert "its memory is full (maxmemory); raise maxmemory" in await looked_at(fleet)
    await r.config_set("maxmemory", 0)
    await r.config_set("min-replicas-to-write", 1)
    assert "too few replicas follow it (min-replicas-to-write); bring its" in await looked_at(fleet)
    await r.config_set("min-replicas-to-write", 0)
    await r.replicaof("127.0.0.1", "1")
    assert "is a read-only replica; let redis.url lead to the primary" in await looked_at(fleet)
    await drop_idle(r)
    await r.replicaof("NO", "ONE")
    await r.execute_command("ACL", "SETUSER", "some", "reset", "on", ">secret", "~*", "&*", "+@all", "-set")
    try:
        theirs = msgspec.structs.replace(fleet, redis_url=server.url.replace("//", "//some:secret@"))
        assert "does not let its user run the command SET (NOPERM); docs/redis.md" in await looked_at(theirs)
    finally:
        await r.execute_command("ACL", "DELUSER", "some")
    assert await looked_at(fleet) == "" and await r.dbsize() == before, "nothing was written"


async def test_one_that_is_still_loading(fleet: Settings, tmp_path: Path) -> None:
    with running_server("redis", tmp_path / "slow") as server, redis.Redis(port=server.port) as one:
        one.mset({f"k{n}": "x" * 100 for n in range(5_000)})
        one.bgrewriteaof()
        eventually(lambda: one.info("persistence")["aof_rewrite_in_progress"] == 0)
        server.stop()
        server.argv += ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"]
        server.begin()
        eventually(lambda: one.info("persistence")["loading"] == 1)
        _, said, way_out = await refused(msgspec.structs.replace(fleet, redis_url=server.url))
        assert "is still loading its data" in said and "wait until it has" in way_out


async def test_one_that_evicts(r: Client, fleet: Settings) -> None:
    await r.config_set("maxmemory-policy", "allkeys-lru")
    await refuse_unfit(fleet, fleet_of("m1"))  # as long as it has no limit it evicts nothing
    await r.config_set("maxmemory", 512 * MIB)
    kind, said, way_out = await refused(fleet)
    assert kind is UsageError and "(maxmemory-policy allkeys-lru)" in said and "--allow-eviction" in way_out
    await refuse_unfit(fleet, fleet_of("m1"), allow_eviction=True)


async def test_rights_that_are_missing(r: Client, fleet: Settings, server: Server) -> None:
    async def as_one(*rules: str) -> Settings:
        await r.execute_command("ACL", "SETUSER", "some", "reset", "on", ">secret", *rules)
        return msgspec.structs.replace(fleet, redis_url=server.url.replace("//", "//some:secret@"))

    try:
        for rules, words in (
            (("~*", "&*", "+@all", "-set"), "does not let its user run SET (NOPERM)"),
            (("~other:*", "&*", "+@all"), "does not let its user use the keys w:assets, w:assets:moving, "),
        ):
            _, said, way_out = await refused(await as_one(*rules))
            assert words in said and "login" not in said and "secret" not in said and "docs/redis.md" in way_out
        no_info = await as_one("~*", "&*", "+@all", "-info")
        await refuse_unfit(no_info, fleet_of("m1"))
        assert (await read_redis(no_info)).info == {}
        with pytest.raises(Unreachable, match="use a channel that emp needs"):
            mine = client((await as_one("~*", "resetchannels", "+@all")).redis_url)
            try:
                await mine.publish(Keys().startup_channel, "x")
            except Exception as e:
                raise unreachable(server.url, e) from e
            finally:
                await mine.aclose()
        _, said, _ = await refused(msgspec.structs.replace(fleet, redis_url=server.url.replace("//", "//some:wrong@")))
        assert "refused the login" in said
    finally:
        await r.execute_command("ACL", "DELUSER", "some")


async def test_doctor_names_them_before_the_first_apply(r: Client, server: Server, tmp_path: Path) -> None:
    rules = ("reset", "on", ">p/w", "~*", "&*", "+@all", "-xadd", "-publish")
    await r.execute_command("ACL", "SETUSER", "some", *rules)
    argv = [sys.executable, "-m", "emp_orch", "-C", str(tmp_path)]
    subprocess.run([*argv, "init"], check=True, capture_output=True)
    file = tmp_path / "emp.yaml"
    file.write_text(file.read_text().replace("url: embedded", f"url: {server.url.replace('//', '//some:p%2Fw@')}", 1))
    (before,) = (await r.config_get("maxclients")).values()
    assert before is not None
    await r.config_set("maxclients", 20)
    try:
        done = subprocess.run([*argv, "doctor"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stdout
        assert "the user in redis.url may not run PUBLISH, XADD (NOPERM)" in done.stdout
        assert "→ ACL SETUSER some +publish +xadd; docs/redis.md" in done.stdout
        assert "this fleet has up to 21 connections to Redis, which takes 20 (maxclients)" in done.stdout
        assert "p/w" not in done.stdout and "p%2Fw" not in done.stdout
        assert "cannot tell (redis-from-machines, subscribers" in done.stdout
    finally:
        await r.config_set("maxclients", before)
        await r.execute_command("ACL", "DELUSER", "some")


async def test_one_that_is_full_of_connections(r: Client, fleet: Settings) -> None:
    (before,) = (await r.config_get("maxclients")).values()
    assert before is not None
    await r.config_set("maxclients", 1)
    try:
        _, said, way_out = await refused(fleet)
        assert "has no room for another connection (maxclients)" in said and "raise maxclients" in way_out
    finally:
        await r.config_set("maxclients", before)


async def test_one_with_too_few_connections_for_the_fleet(r: Client, fleet: Settings) -> None:
    (before,) = (await r.config_get("maxclients")).values()
    assert before is not None
    await r.config_set("maxclients", 20)
    try:
        await refuse_unfit(fleet, fleet_of("m1", num_gpus=1))
        kind, said, _ = await refused(fleet, gpus=8)
        assert kind is UsageError and "up to 33 connections" in said and "takes 20 (maxclients)" in said
    finally:
        await r.config_set("maxclients", before)


async def test_another_fleet_under_the_same_keys(r: Client, fleet: Settings) -> None:
    await r.set(Keys().generation("theirs"), 3)
    mine = msgspec.structs.replace(fleet, prefix="")
    kind, said, way_out = await refused(mine)
    assert kind is UsageError and said.startswith("fleet theirs lives under the same keys (redis://")
    assert "nothing leads it now" in said and "redis.prefix" in way_out and "--take-over" in way_out
    await refuse_unfit(mine, fleet_of("m1"), take_over=True)
    await refuse_unfit(msgspec.structs.replace(fleet, prefix="my*:"), fleet_of("m1"))
    await r.set(Keys().leader("theirs"), "somebody")
    _, said, way_out = await refused(mine, take_over=True)
    assert "nothing leads" not in said and "emp down" in way_out
    await r.set(Keys().generation("mine"), 1)
    await refuse_unfit(mine, fleet_of("m1"))


async def test_apply_touches_nothing(r: Client, fleet: Settings, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    folder.mkdir()
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder)]
    subprocess.run([*argv, "init"], check=True, capture_output=True)
    file = folder / "emp.yaml"
    file.write_text(file.read_text().replace("url: embedded", f"url: {server.url}", 1))
    await r.replicaof("127.0.0.1", "1")
    done = subprocess.run([*argv, "apply", "-y"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "is a read-only replica" in done.stderr, done.stderr
    assert not (folder / ".emp" / "control" / "run").exists()
