"""The machine image on a real engine: ready, at work, healthy, ended in good order, and started again and again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import MachineStatus, WorkerStatus
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from emp_orch.store.reports.reports import read_worker
from support.docker.engine import BASE, Engine, emp_images
from support.docker.machine import PASSWORD, USER, Container, GatewayRedis, gateway_redis
from support.fleet.fleets import COMFYUI, SIMULATION, fleet, machine
from support.machine.machine import KEYS, desired, running, sleeper
from support.redis.server import job, until

READY_S = 90.0


def at_work() -> DesiredMachine:
    """The machine of the default emp.yaml: a shared service, and ComfyUI's stand-in for each of two GPU slots."""
    m = machine("m", services=["simulation", "comfyui"], num_gpus=2)
    return desired_machine(fleet([SIMULATION, COMFYUI], m), m)


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayRedis]:
    with gateway_redis(engine, tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: GatewayRedis) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushdb()
    yield made
    await made.aclose()


@pytest.fixture
async def box(
    engine: Engine, machine_image: str, server: GatewayRedis, tmp_path: Path, r: Client
) -> AsyncIterator[Container]:
    made = Container(engine, tmp_path, r, server)
    yield made
    await made.stop()


async def idle(box: Container, r: Client) -> None:
    """Until both workers are."""

    async def look() -> bool:
        workers = [await read_worker(r, KEYS, f"m-worker-{gpu}") for gpu in (0, 1)]
        return all(w is not None and w.status is WorkerStatus.IDLE for w in workers)

    await until(look, within_s=READY_S)


async def test_it_gets_ready_does_a_job_and_shows_no_password(box: Container, engine: Engine, r: Client) -> None:
    await box.start(at_work())
    found = await box.until(lambda m: m.status is MachineStatus.READY, within_s=READY_S)
    assert found.num_gpus == 2
    await idle(box, r)
    await until(lambda: asyncio.to_thread(lambda: box.health == "healthy"))

    queue = Queue(r, KEYS)
    asked = await queue.submit(job("simulation", payload={"prompt": "a boat", "steps": 2}))

    async def is_done() -> bool:
        return (await queue.get(asked.job_id)).status is JobStatus.COMPLETED

    await until(is_done, within_s=60.0)

    uid, place, mode = box.exec("sh", "-c", "id -u; touch /opt/emp/x 2>&1; stat -c %a /var/lib/emp").splitlines()
    assert (int(uid), mode) == (USER, "1777") and "Read-only" in place
    said = box.said()
    assert "spawned: 'redis-worker-gpu1'" in said, "docker logs shows the machine's log"
    shown = json.dumps(engine.inspect(box.id)) + box.logs() + box.exec("cat", "/proc/1/cmdline")
    assert PASSWORD not in shown + said
    worker = box.environ("redis-worker-gpu0")
    assert f"REDIS_URL=redis://:{PASSWORD}@host.docker.internal:" in worker


async def test_docker_stop_lets_a_job_end_first(box: Container, engine: Engine, r: Client) -> None:
    await box.start(at_work())
    await idle(box, r)
    queue = Queue(r, KEYS)
    asked = await queue.submit(job("simulation", payload={"prompt": "a slow boat", "steps": 100}))

    async def runs() -> bool:
        return (await queue.get(asked.job_id)).status is JobStatus.IN_PROGRESS

    await until(runs)
    await asyncio.to_thread(engine.docker, "stop", "--time", "80", box.id)
    assert (await queue.get(asked.job_id)).status is JobStatus.COMPLETED
    assert engine.inspect(box.id)["State"]["ExitCode"] == 0
    assert await box.report() is None, box.said()


async def test_each_start_on_the_same_volume_is_a_boot_of_its_own(box: Container, engine: Engine) -> None:
    await box.start(desired(sleeper("a")))
    boots = [(await box.until(lambda m: m.status is MachineStatus.READY, within_s=READY_S)).boot_id]
    for attempt in range(6):
        if attempt < 5:
            await asyncio.to_thread(engine.docker, "restart", "--time", "60", box.id)
        else:
            engine.docker("kill", box.id)
            engine.docker("start", box.id)
        again = await box.until(
            lambda m: (
                m.status is MachineStatus.READY and m.boot_id not in boots and running(m.programs[ProgramName("a")])
            ),
            within_s=READY_S,
        )
        boots.append(again.boot_id)
        assert engine.inspect(box.id)["State"]["Status"] == "running"
    assert len(set(boots)) == 7


async def test_it_is_unhealthy_while_its_agent_is_away(box: Container) -> None:
    await box.start(desired(sleeper("a")))
    await box.until(lambda m: m.status is MachineStatus.READY, within_s=READY_S)
    await until(lambda: asyncio.to_thread(lambda: box.health == "healthy"))
    box.exec("sh", "-c", "kill -STOP $(cut -d' ' -f1 /var/lib/emp-own/machine/run/agent)")
    await until(lambda: asyncio.to_thread(lambda: box.health == "unhealthy"), within_s=60.0)
    box.exec("sh", "-c", "kill -CONT $(cut -d' ' -f1 /var/lib/emp-own/machine/run/agent)")
    await until(lambda: asyncio.to_thread(lambda: box.health == "healthy"), within_s=60.0)


def test_a_second_build_finds_nothing_to_do(engine: Engine, machine_image: str) -> None:
    before = engine.inspect(machine_image)["Id"]
    assert emp_images(engine, "build", "--base", BASE) == f"{machine_image} is up to date\n"
    assert engine.inspect(machine_image)["Id"] == before
    listed = [f"{i['image']}:{i['tag']}" for i in json.loads(emp_images(engine, "list", "--json"))]
    assert listed.count(machine_image) == 1  # other tests have images of other names on this engine
