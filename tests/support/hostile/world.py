"""A fleet that stands in a real Redis, with the reconciler's loop and the API at work in this process, to be harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio as aioredis
from msgspec import structs

from emp_orch.api.app import build_app, build_context, parts_of
from emp_orch.api.context import Context
from emp_orch.api.routes import ROUTES
from emp_orch.control.host.generation import keep
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.reconciler.daemon import built
from emp_orch.control.reconciler.loop import Loop
from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.model.fleet import Fleet, MachineId
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.policy.memory import Attempt, Breaker, Memory
from emp_orch.fleet.round import Inputs
from emp_orch.jobs.document.model import JobError, Result
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import InputLimits, Listen, Settings
from emp_orch.store.fleet import commands, configs, journal, rounds
from emp_orch.store.fleet.overrides import put_override
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.web.serve import listening
from support.fleet.fleets import look, wish
from support.hostile.corpus import Case, Raw
from support.http.stack import Producer, fleet_of, free_port

FLEET = "basic"
# `box-1` is harmed, `box-2` is the rest of the fleet.
BOXES = ("box-1", "box-2")
ROUND_S = 20.0
PROBED = [route for route in ROUTES if route.method == "GET" and route.kind in ("json", "text")]


class World:
    """`harm` and `heal` by the corpus; `probe` looks at all that can be read."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.keys = Keys()
        self.r: Client = client(url)
        self.raw: Raw = aioredis.from_url(url)
        self.layout = Layout(folder)
        for made in (self.layout.control, self.layout.logs, self.layout.redis):
            made.mkdir(parents=True)
        self.settings = Settings(
            fleet=FLEET,
            redis_url=url,
            machine_redis_url=url,
            embedded=True,
            redis_port=0,
            prefix="",
            artifacts=self.layout.artifacts_url,
            api=Listen(host="127.0.0.1", port=free_port(), token=None),
            monitor=Listen(host="127.0.0.1", port=free_port(), token=None),
            inputs=InputLimits(hosts=(), max_bytes=1024),
        )
        self.rounds = 0
        self.faults: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.jobs: dict[str, str] = {}
        self._whole: dict[bytes, tuple[bytes, int]] = {}
        self._held: Claims | None = None

    # -- building

    async def build(self) -> None:
        """Everything that emp ever writes, through its own writers."""
        fleet = fleet_of(*BOXES, num_gpus=1)
        machines = tuple(structs.replace(m, runtime=RuntimeKind.EXTERNAL) for m in fleet.machines)
        self.fleet: Fleet = structs.replace(fleet, machines=machines)
        self.producer = producer = Producer(self.r, self.keys)
        self.signing = SigningKey(self.layout, FLEET)
        producer.seal = self.signing.control()
        keep(self.layout, await producer.apply(self.fleet))
        for box in BOXES:
            await self.report(box)
        await self._queue()
        await self._orders()

    async def report(self, box: str) -> None:
        await self.producer.machine(self.fleet, box)
        await self.producer.worker(box, 0, job=self.jobs.get("held") if box == "box-1" else None)

    async def _queue(self) -> None:
        queue, able = Queue(self.r, self.keys), {"services": ["simulation"]}
        claims = Claims(self.r, self.keys, "box-1-worker-0", lease_s=3_600)

        async def sent(name: str, **fields: Any) -> str:
            asked = {"service": "simulation", "payload": {"steps": 3}, **fields}
            self.jobs[name] = (await queue.submit(parse_submission(asked))).job_id
            return self.jobs[name]

        for name in ("done", "failed", "held"):
            await sent(name, max_retries=0)
            claim = await claims.claim_or_wait(able)
            assert isinstance(claim, Claimed)
            if name == "done":
                await claims.complete_and_claim(able, [(claim, Result())], want=0)
            elif name == "failed":
                await claims.not_completed(claim, Cause.FAILED, JobError(message="it broke"))
        await sent("large", payload={"text": "x" * 10_000})
        secret = {"workflow": {}, "extra_data": {"api_key_comfy_org": "a-secret-of-the-test"}}
        await sent("secret", service="comfyui", payload=secret)
        await sent("nobody", service="unknown")
        await queue.judge((await queue.get(self.jobs["nobody"])).lane, "no service of that name")
        for n in range(3):
            await sent(f"waiting-{n}")
        await queue.keep_ended(1_000)
        waiting = Claims(self.r, self.keys, "box-2-worker-0", lease_s=30)
        await waiting.claim_or_wait({"services": ["comfyui"]})
        await waiting.aclose()
        self._held = claims

    async def _orders(self) -> None:
        r, keys = self.r, self.keys
        mandate = await self.producer.mandate("elsewhere:1:1")
        machine = desired_machine(self.fleet, self.fleet.machines[0])
        order = commands.Command(verb=commands.CommandVerb.RESTART_PROGRAM, seq="1", program="comfyui-gpu0")
        seal = self.signing.machine("box-1")
        await commands.send(r, keys, mandate, "box-1", order, seal=seal, count=1)
        await commands.acknowledge(r, keys, "box-1", commands.Ack(seq="1", ok=True))
        config = configs.MachineConfig(generation=1, digest=config_hash(machine), supervisord="", machine=machine)
        await configs.write_config(r, keys, mandate, config, seal)
        await journal.write(r, keys, mandate, [("drift_opened", {"kind": "program-fatal", "machine_id": "box-1"})])
        inputs = Inputs(
            desired=wish(),
            observed=look(),
            memory=Memory(),
            overrides=(),
            asked=(),
            running=frozenset(),
            closes_breaker=False,
            jitter=0.5,
        )
        await rounds.record(r, keys, mandate, rounds.pack(rounds.Recorded(inputs=inputs, plan=(), run=())))
        attempt = Attempt(count=2, last_ms=1, times_ms=(1,), error="why")
        key = "restart-program/box-1/comfyui-gpu0"
        memory = Memory(attempts={key: attempt}, quarantined={key: "why"}, busy={key: 1}, breaker=Breaker(width=2))
        await rounds.write_memory(r, keys, mandate, memory, self.signing.control())
        await self.producer.status(await self.producer.drift("box-1", "comfyui-gpu0"), leader="elsewhere:1:1")
        pause = Override(kind=OverrideKind.PAUSE, machine_id=MachineId("box-1"), reason="the test", by="test", at="")
        await put_override(r, keys, FLEET, pause, self.signing.control())
        await r.delete(keys.leader(FLEET))

    # -- running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The reconciler and the API, as their daemons build them."""
        self.ctx: Context = build_context(self.settings, self.layout, client(self.url, most=7, tolerant=True))
        r = client(self.url, most=3)
        election = LeaderElection(r, self.keys, FLEET, "elsewhere:2:2")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(r.aclose)
            stack.push_async_callback(self.ctx.redis.aclose)
            stack.push_async_callback(self.ctx.line.aclose)
            api = self.settings.api
            await stack.enter_async_context(listening(build_app(self.ctx), what="api", host=api.host, port=api.port))
            self.session = await stack.enter_async_context(aiohttp.ClientSession(base_url=api.url))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            reconciler, backend = built(
                r, self.keys, self.layout, self.settings, election, group, wake=lambda: self.loop.wake()
            )
            tick = reconciler.tick

            async def counted() -> Any:
                done = await tick()
                self.rounds += 1
                return done

            reconciler.tick = counted  # type: ignore[method-assign]
            self.backend, self.reconciler = backend, reconciler
            self.loop = Loop(r, self.keys, reconciler, backend, election)
            parts = [*self.loop.parts(), *(part() for _, part in parts_of(self.ctx)[:-1]), self._beat()]
            self.tasks = [group.create_task(part) for part in parts]
            try:
                await self.a_round()
                await self.save()
                yield
            finally:
                self.ctx.hub.close()
                for task in self.tasks:
                    task.cancel()
                current = asyncio.current_task()
                for task in asyncio.all_tasks():
                    if task is not current and task in group._tasks:
                        task.cancel()

    async def _beat(self) -> None:
        """`box-2` lives."""
        while True:
            with contextlib.suppress(Exception):
                await self.report("box-2")
            await asyncio.sleep(1)

    async def a_round(self, n: int = 1) -> bool:
        """Whether the reconciler comes through another round."""
        upto = self.rounds + n
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUND_S):
                while self.rounds < upto:
                    assert not self.ended(), self.ended()
                    self._all_is_due()
                    self.loop.wake()
                    await asyncio.sleep(0.02)
        return self.rounds >= upto

    def _all_is_due(self) -> None:
        """What the leader does now and then is done in the next round; and what the last one remembered is read."""
        self.reconciler.stand_by()
        jobs: Any = self.backend._jobs
        jobs._strays._next_ms = jobs._retention._next_ms = 0

    def ended(self) -> str:
        """Which part has ended, and by what."""
        for task in self.tasks:
            if task.done():
                return f"{task.get_coro().__qualname__} ended: {task.exception()!r}"  # type: ignore[union-attr]
        return ""

    # -- harming

    async def save(self) -> None:
        self._whole = {}
        for key in await self.raw.keys(b"*"):
            assert isinstance(key, bytes)
            if (dump := await self.raw.dump(key)) is not None:
                self._whole[key] = dump, max(0, await self.raw.pttl(key))

    async def harm(self, *cases: Case) -> None:
        for case in cases:
            async with self.raw.pipeline(transaction=True) as pipe:  # nobody writes it anew between two of them
                for command in case.commands:
                    pipe.execute_command(*command)
                await pipe.execute()

    async def heal(self, *cases: Case) -> None:
        """Put the keys of `cases` back as they were."""
        for case in cases:
            key = case.key.encode()
            if key in self._whole:
                dump, ttl = self._whole[key]
                await self.raw.restore(key, ttl, dump, replace=True)
            else:
                await self.raw.delete(key)
        now = await time_ms(self.r)
        for seen, ids in ((self.keys.machines_seen, BOXES), (self.keys.workers_seen, [f"{b}-worker-0" for b in BOXES])):
            if (await self.raw.type(seen)) == b"zset":
                await self.raw.zadd(seen, dict.fromkeys(ids, now))

    # -- looking

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(path) as answer:
            return answer.status, await answer.text()

    def paths(self) -> list[str]:
        """Every route that can be read, with names of what is there."""
        found = []
        for route in PROBED:
            ids = list(self.jobs.values()) if "/jobs/{id}" in route.path else [""]
            if "explain" in route.path or "artifacts" in route.path:
                ids = [self.jobs["waiting-0"]]
            for job_id in ids:
                found.append(
                    route.path.replace("{id}", job_id)
                    .replace("{kind}", "program-fatal")
                    .replace("{machine_id}", "box-1")
                    .replace("{subject}", "comfyui-gpu0")
                    .replace("{component}", "reconcile")
                    .replace("{name}", "x")
                    .replace("{digest}", "0" * 64)
                )
        return [*found, "/api/jobs?status=pending", "/api/jobs?status=failed", "/api/jobs?service=simulation"]

    async def probe(self, cases: Sequence[Case]) -> list[str]:
        """What is wrong with how the rest is served while `cases` stand."""
        wrong = []
        if not await self.a_round():
            wrong.append("the reconciler comes through no round")
        if gone := self.ended():
            wrong.append(gone)
        for path in self.paths():
            status, text = await self.get(path)
            if status >= 500:
                wrong.append(f"GET {path}: {status} {text[:300]}")
            elif path == "/api/monitor/state" and not self._all_machines_in(cases) and not _serves_the_rest(text):
                wrong.append("the state lacks the rest of the fleet")
        return wrong

    def _all_machines_in(self, cases: Sequence[Case]) -> bool:
        """Whether nobody can say anything of any machine."""
        return any(c.wrong_type and c.key in (self.keys.machines, self.keys.machines_seen) for c in cases)

    async def until(self, sees: Callable[[dict[str, Any]], bool], within_s: float = 20.0) -> dict[str, Any]:
        """The state, once it is as `sees` wants it."""
        async with asyncio.timeout(within_s):
            while True:
                _, text = await self.get("/api/monitor/state")
                state: dict[str, Any] = json.loads(text)["data"]
                if sees(state):
                    return state
                self.loop.wake()
                await asyncio.sleep(0.05)


def _serves_the_rest(text: str) -> bool:
    machines = json.loads(text)["data"]["machines"]
    return any(m["machine_id"] == "box-2" and m["status"] == "ready" for m in machines)


logging.getLogger("emp.request").setLevel(logging.WARNING)
