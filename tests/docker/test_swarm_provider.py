"""The provider `swarm` against a real Docker Swarm of two engines, each with one GPU as far as Swarm knows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from emp_orch.fleet.model.fleet import GpuKind, MachineId, PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError
from emp_orch.runtimes.providers.registry import load
from emp_orch.runtimes.providers.swarm.provider import WITHIN_S, SwarmProvider
from emp_orch.settings import EngineAddress
from support.docker.engine import Engine
from support.docker.swarm import BOX, SwarmNode, swarm
from support.provider_contract import RULES, Rule, Subject, launch, rule_name

FLEET, POOL = "swarming", PoolName("renders")
SOON_S = 60.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[SwarmNode, SwarmNode]]:
    with swarm() as made:
        yield made


class Pool:
    """One pool on the Swarm of `nodes`, whose folder is `folder`."""

    def __init__(self, nodes: tuple[SwarmNode, SwarmNode], folder: Path, **options: Any) -> None:
        self.manager, self.worker = nodes
        self.provider = provider_at(self.manager.host, folder, FLEET, POOL, **options)
        self.asked: list[MachineId] = []

    async def create(self, name: str, **changes: Any) -> Launch:
        asked = launch(image=BOX, **changes)(FLEET, POOL, MachineId(f"{POOL}-{name}"))
        self.asked.append(asked.member_id)
        await self.provider.create(asked)
        return asked

    async def until(self, what: str, so: Callable[[dict[str, Box]], object]) -> dict[str, Box]:
        """The boxes by the ends of their members' names, once they are `so`."""
        deadline = time.monotonic() + SOON_S
        while not so(seen := {b.member_id.removeprefix(f"{POOL}-"): b for b in await self.provider.boxes()}):
            assert time.monotonic() < deadline, f"not within {SOON_S:g} s: {what}; {list(seen.values())}"
            await asyncio.sleep(0.1)
        return seen

    def node(self, name: str) -> SwarmNode:
        return self.manager if name == self.manager.name else self.worker

    def container(self, box: Box) -> dict[str, Any]:
        """What its node's engine says of the box's container that runs."""
        node = self.node(box.node)
        # The newest first: one that was removed may still drain.
        found = node.docker("ps", "-q", "--filter", f"label=emp.member={box.member_id}").split()
        return node.inspect(found[0])


def provider_at(host: EngineAddress, folder: Path, fleet: str, pool: PoolName, **options: Any) -> SwarmProvider:
    given = {"host": host.name, **options}
    made = load("swarm", Making(fleet=fleet, pool=pool, options=given, folder=str(folder / ".emp"), hosts=(host,)))
    assert isinstance(made, SwarmProvider)
    return made


@asynccontextmanager
async def pool_of(nodes: tuple[SwarmNode, SwarmNode], folder: Path, **options: Any) -> AsyncIterator[Pool]:
    """At the end nothing of it is left: no service, no secret, no container."""
    pool = Pool(nodes, folder, **options)
    try:
        yield pool
    finally:
        for member in pool.asked:
            await pool.provider.remove(member, stop_s=1.0)
        ours = ("ps", "-q", "--filter", f"label=emp.fleet={FLEET}")
        await pool.until("all are gone", lambda seen: not seen and not [n for n in nodes if n.docker(*ours)])
        await pool.provider.aclose()
    assert pool.manager.docker("service", "ls", "-q", "--filter", f"label=emp.fleet={FLEET}").split() == []
    assert pool.manager.docker("secret", "ls", "-q", "--filter", f"label=emp.fleet={FLEET}").split() == []


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
async def test_a_swarm_keeps_the_contract(rule: Rule, nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    def provider(fleet: str, pool: PoolName) -> SwarmProvider:
        return provider_at(nodes[0].host, tmp_path, fleet, pool)

    await rule(Subject(provider=provider, launch=launch(image=BOX), within_s=SOON_S))
    assert nodes[0].docker("service", "ls", "-q").split() == []
    assert nodes[0].docker("secret", "ls", "-q").split() == []


async def test_each_gpu_has_a_member_and_the_third_waits(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        for name in ("one", "two"):
            await pool.create(name, num_gpus=1, gpus=GpuKind.NVIDIA)
        seen = await pool.until("both run", lambda seen: [b.state for b in seen.values()] == [BoxState.RUNNING] * 2)
        assert {b.node for b in seen.values()} == {node.name for node in nodes}
        assert list(pool.container(seen["one"])["NetworkSettings"]["Networks"]) == ["bridge"]
        await pool.create("three", num_gpus=1, gpus=GpuKind.NVIDIA)
        words = "no suitable node (insufficient resources on 2 nodes)"
        seen = await pool.until("the third waits", lambda seen: seen["three"].words == words)
        assert (seen["three"].state, seen["three"].node) == (BoxState.PENDING, "")
        # A GPU that is given back is the third's.
        await pool.provider.remove(MachineId(f"{POOL}-one"), stop_s=1.0)
        await pool.until("the third runs", lambda seen: seen["three"].state is BoxState.RUNNING)


async def test_a_box_is_what_was_asked_for(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    worker = nodes[1].name
    async with pool_of(nodes, tmp_path, constraints=[f"node.hostname=={worker}"], network="host") as pool:
        asked = await pool.create("one", EXTRA="of ours")
        seen = await pool.until("it runs", lambda seen: seen["one"].state is BoxState.RUNNING)
        assert seen["one"].node == worker
        found = pool.container(seen["one"])
        environment = dict(word.split("=", 1) for word in found["Config"]["Env"])
        assert asked.variables.items() <= environment.items() and environment["EXTRA"] == "of ours"
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Init"]) == (True, ["ALL"], True)
        assert (host["NetworkMode"], host["PidsLimit"]) == ("host", asked.limits.pids)
        assert found["Config"]["User"] == "10001:10001"
        # It reads its token, and nothing else shows it: no argument, variable, label, service, task or secret.
        token = "/run/secrets/emp-join-token"
        said = pool.worker.docker("exec", found["Id"], "sh", "-c", f"cat {token}; stat -c ' %a %u' {token}")
        assert said == f"{asked.token} 400 10001\n"
        manager = pool.manager
        name = seen["one"].ref
        task = manager.docker("service", "ps", "-q", name).split()[0]
        shown = [manager.docker("service", "inspect", name), manager.docker("inspect", task), json.dumps(found)]
        shown += [manager.docker("secret", "inspect", name), pool.worker.docker("logs", found["Id"], both=True)]
        assert not [text for text in shown if asked.token in text]


async def test_a_node_dies_and_its_member_is_itself_elsewhere(
    nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path
) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        await pool.create("one")
        await pool.create("two")
        seen = await pool.until("both run", lambda seen: [b.state for b in seen.values()] == [BoxState.RUNNING] * 2)
        (lost,) = (name for name, box in seen.items() if box.node == pool.worker.name)
        before = pool.container(seen[lost])["Config"]["Env"]
        stays = next(box for name, box in seen.items() if name != lost)
        kept = pool.container(stays)["Id"]
        pool.worker.die()
        try:
            here = pool.manager.name
            seen = await pool.until(
                "it runs elsewhere", lambda seen: (seen[lost].node, seen[lost].state) == (here, BoxState.RUNNING)
            )
            assert pool.container(seen[lost])["Config"]["Env"] == before
            assert pool.container(stays)["Id"] == kept
        finally:
            pool.worker.start()
        # The node is back, and its old box does not make a twin.
        ready = ["node", "ls", "--format", "{{.Status}}"]
        await pool.until("both are ready", lambda _: pool.manager.docker(*ready).split() == ["Ready", "Ready"])
        await pool.create("three")
        await pool.until("it runs on the node that is back", lambda seen: seen["three"].node == pool.worker.name)
        label = f"label=emp.member={POOL}-{lost}"
        assert pool.worker.docker("ps", "-q", "--filter", label).split() == []


async def test_a_removed_box_drains(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        await pool.create("one", stop_s=30.0, DRAIN="3")
        seen = await pool.until("it runs", lambda seen: seen["one"].state is BoxState.RUNNING)
        node, container = pool.node(seen["one"].node), pool.container(seen["one"])["Id"]
        await pool.provider.remove(MachineId(f"{POOL}-one"), stop_s=30.0)
        assert await pool.provider.boxes() == ()
        assert node.status(container) == "running"
        past = ("events", "--since", "60s", "--until", "0s", "--filter", f"container={container}")
        await pool.until("it has ended", lambda _: " die " in node.docker(*past))
        assert "exitCode=0" in node.docker(*past)


async def test_what_keeps_a_box_from_running_is_told(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    async with pool_of(nodes, tmp_path, image="emp-test-none:1") as pool:
        await pool.create("one")
        seen = await pool.until("it says why", lambda seen: "No such image: emp-test-none:1" in seen["one"].words)
        assert seen["one"].state is BoxState.PENDING
    async with pool_of(nodes, tmp_path, constraints=["node.labels.of==nobody"]) as pool:
        await pool.create("one")
        words = "no suitable node (scheduling constraints not satisfied on 2 nodes)"
        await pool.until("no node fits", lambda seen: seen["one"].words == words)


async def test_a_service_of_somebody_else_is_left_alone(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    docker = nodes[0].docker
    labels = ["--label", f"emp.fleet={FLEET}", "--label", f"emp.pool={POOL}", "--label", f"emp.member={POOL}-one"]
    theirs = docker("service", "create", "--detach", "--no-resolve-image", "--replicas", "0", *labels, BOX).strip()
    try:
        pool = Pool(nodes, tmp_path)  # a fleet of the same name in another folder
        assert await pool.provider.boxes() == ()
        await pool.provider.remove(MachineId(f"{POOL}-one"), stop_s=1.0)
        assert [theirs.startswith(one) for one in docker("service", "ls", "-q").split()] == [True]
        await pool.provider.aclose()
    finally:
        docker("service", "rm", theirs)


async def test_a_secret_that_an_earlier_try_left_is_replaced(
    nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path
) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        await pool.create("one")
        (service,) = pool.manager.docker("service", "ls", "-q", "--filter", f"label=emp.fleet={FLEET}").split()
        pool.manager.docker("service", "rm", service)
        asked = await pool.create("one", stop_s=1.0)
        seen = await pool.until("it runs", lambda s: "one" in s and not s["one"].words and s["one"].ref != service)
        read = pool.node(seen["one"].node).docker
        assert read("exec", pool.container(seen["one"])["Id"], "cat", "/run/secrets/emp-join-token") == asked.token


async def test_a_manager_that_is_cut_off_and_back(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        await pool.create("one")
        pool.manager.cut()
        try:
            for call in (pool.provider.boxes(), pool.create("two"), pool.provider.remove(pool.asked[0], stop_s=1.0)):
                began = time.monotonic()
                with pytest.raises(ProviderError) as refused:
                    await call
                assert f"Docker host {pool.manager.name}" in refused.value.message
                assert time.monotonic() - began < WITHIN_S
        finally:
            pool.manager.mend()
        await pool.until("it answers again", lambda seen: seen["one"].state is BoxState.RUNNING)


async def test_a_worker_is_no_manager(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    provider = provider_at(nodes[1].host, tmp_path, FLEET, POOL)
    with pytest.raises(ProviderError, match=r"This node is not a swarm manager\. Worker nodes can't") as refused:
        await provider.boxes()
    assert "name a manager" in refused.value.hint
    await provider.aclose()


async def test_an_engine_without_a_swarm(engine: Engine, tmp_path: Path) -> None:
    host = EngineAddress(name="plain", url=engine.url, here=True)
    provider = provider_at(host, tmp_path, FLEET, POOL)
    for call in (provider.boxes(), provider.create(launch(image=BOX)(FLEET, POOL, MachineId(f"{POOL}-one")))):
        with pytest.raises(ProviderError, match=r'not a swarm manager\. Use "docker swarm init"') as refused:
            await call
        assert "docker swarm init" in refused.value.hint
    await provider.aclose()


async def test_the_engine_tells_of_changes(nodes: tuple[SwarmNode, SwarmNode], tmp_path: Path) -> None:
    async with pool_of(nodes, tmp_path) as pool:
        told = asyncio.Event()
        watch = asyncio.create_task(pool.provider.watch(told.set))
        try:
            async with asyncio.timeout(SOON_S):
                n = 0
                while not told.is_set():  # until it listens, what happens is not told
                    await pool.create(f"n{n}")
                    n += 1
                    await asyncio.wait({asyncio.ensure_future(told.wait())}, timeout=1.0)
            told.clear()
            pool.manager.stop()
            pool.manager.start()
            async with asyncio.timeout(SOON_S):
                await told.wait()
        finally:
            watch.cancel()
            await asyncio.wait({watch})
