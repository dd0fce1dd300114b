"""The agents and workers of a simulated fleet, in one process: their reports, heartbeats, changes and events.

It writes as emp_orch.store.reports.reports does, by the same script, for many subjects over one pipeline.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import msgspec
from msgspec import structs
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript

from bench.reconcile import simulated
from bench.reconcile.children import questions, reply
from emp_orch.control.host.generation import as_desired, digest
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Drift, Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import MachineReport, ProgramState, WorkerReport, WorkerStatus
from emp_orch.store.fleet import generations
from emp_orch.store.fleet.events import MAX_EVENTS, Events, encode
from emp_orch.store.fleet.generations import Generation, without_secrets
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import BEATS_PER_DOCUMENT, PUT, keys_of

# What agents and workers do; a larger fleet's beat slower, so that the writer leaves the machine to what is measured.
BEAT_S = 2.0
MAX_BEATS_PER_S = 4_500
# Commands a trip.
CHUNK = 500

T = TypeVar("T")


class _Subject:
    """One machine or worker: what it says, and what Redis has of that."""

    def __init__(self, subject: str, keys: list[str], report: MachineReport | WorkerReport) -> None:
        self.report: Any = report
        self._subject = subject
        self._keys = keys
        self._last = b""
        self._beats = 0

    async def write(self, put: AsyncScript, pipe: Pipeline) -> None:
        """As ReportWriter.write does it, without an answer."""
        text = msgspec.json.encode(self.report)
        beat = text == self._last and self._beats < BEATS_PER_DOCUMENT
        self._last, self._beats = text, self._beats + 1 if beat else 0
        await put(keys=self._keys, args=[self._subject, b"" if beat else text, ""], client=pipe)


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


class Fleet:
    """Writes for a whole fleet. What is on the way in the pipeline is sent before anybody else uses it."""

    def __init__(self, r: Client, generation: Generation, now_ms: int) -> None:
        self._keys = Keys()
        self._r = r
        self.pipe = r.pipeline(transaction=False)
        self.put = r.register_script(PUT)
        self.lock = asyncio.Lock()
        self._events = Events(r, self._keys)
        desired = list(as_desired(generation).machines.values())
        self._machines = [self._machine(m, generation.number, now_ms) for m in desired]
        self.workers = [s for m in desired for s in self._workers_of(m, now_ms)]
        self._next_worker = 0
        self.beats = 0
        self.beat_s = max(BEAT_S, len(self._all) / MAX_BEATS_PER_S)

    @property
    def _all(self) -> list[_Subject]:
        return [*self._machines, *self.workers]

    def _machine(self, m: DesiredMachine, number: int, now_ms: int) -> _Subject:
        return _Subject(m.id, keys_of(self._keys, "machine"), simulated.machine_report(m, number, now_ms))

    def _workers_of(self, m: DesiredMachine, now_ms: int) -> Iterator[_Subject]:
        for slot, worker_id in enumerate(m.workers):
            report = simulated.worker_report(worker_id, m.id, slot, now_ms)
            yield _Subject(worker_id, keys_of(self._keys, "worker"), report)

    async def write(self, subjects: list[_Subject]) -> None:
        """Documents of those that changed, heartbeats of the others."""
        for chunk in _chunks(subjects, CHUNK):
            async with self.lock:
                await self._write(chunk)

    async def _write(self, subjects: list[_Subject]) -> None:
        for subject in subjects:
            await subject.write(self.put, self.pipe)
        await self.pipe.execute()

    async def fill(self) -> None:
        await self.write(self._all)

    async def beat(self) -> None:
        """Heartbeats for ever, spread over the time between two of one subject."""
        everyone = self._all
        slices = list(_chunks(everyone, max(1, len(everyone) // 40)))
        due = time.monotonic()
        while True:
            for part in slices:
                await self.write(part)
                self.beats += len(part)
                due = max(due + self.beat_s / len(slices), time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def change_workers(self, part: float) -> int:
        """The next `part` of all workers take or end a job: their reports, then their events, as workers do."""
        count = max(1, int(len(self.workers) * part))
        chosen = [self.workers[(self._next_worker + k) % len(self.workers)] for k in range(count)]
        self._next_worker = (self._next_worker + count) % len(self.workers)
        for subject in chosen:
            busy = subject.report.status is not WorkerStatus.BUSY
            subject.report = structs.replace(
                subject.report,
                status=WorkerStatus.BUSY if busy else WorkerStatus.IDLE,
                current_job_id="bench" if busy else None,
            )
        await self.write(chosen)
        async with self.lock:
            for subject in chosen:
                self.pipe.xadd(
                    self._keys.events, cast(Any, status_event(subject.report)), maxlen=MAX_EVENTS, approximate=True
                )
            await self.pipe.execute()
        return count

    async def change_program(self, number: int, *, away: bool) -> tuple[int, str]:
        """A program of machine `number` is being restarted, or is up again: event and report, as an agent does.

        Returns when it began, by CLOCK_MONOTONIC in ns, and the key of the drift that comes or goes.
        """
        subject = self._machines[number]
        name = next(n for n in subject.report.programs if n.startswith("comfyui-gpu"))
        state = ProgramState.STARTING if away else ProgramState.RUNNING
        program = structs.replace(subject.report.programs[name], state=state)
        subject.report = structs.replace(subject.report, programs={**subject.report.programs, name: program})
        machine_id = subject.report.machine_id
        async with self.lock:
            began_ns = time.monotonic_ns()
            await self._events.append_machine("program_state", machine_id=machine_id, program=name, state=state)
            await self._write([subject])
        return began_ns, drift_key(machine_id, name)


def drift_key(machine_id: MachineId, program: str) -> str:
    """The key of the drift that a program on its way is."""
    kind = Kind.PROGRAM_STARTING
    about = Drift(kind=kind, machine_id=machine_id, subject=program, desired="", observed="", cause="", origin="")
    return about.key


def status_event(report: WorkerReport) -> dict[str, str]:
    about = {"worker_id": report.worker_id, "machine_id": report.machine_id}
    return encode("worker_status", {**about, "status": report.status, "job_id": report.current_job_id})


async def published(r: Client, url: str, machines: int, gpus: int) -> Generation:
    fleet = simulated.fleet(url, machines, gpus)
    now = await time_ms(r)
    generation = Generation(number=1, at_ms=now, fleet=without_secrets(fleet), digest=digest(fleet))
    if not await generations.publish(r, Keys(), generation, simulated.seal()):
        raise SystemExit("bench: another generation is in this Redis")
    return generation


async def main(url: str, machines: int, gpus: int) -> None:
    r = client(url)
    fleet = Fleet(r, await published(r, url, machines, gpus), await time_ms(r))
    await fleet.fill()
    beating = asyncio.create_task(fleet.beat(), name="heartbeats")
    async for asked in questions():
        if beating.done():
            beating.result()
        match asked["do"]:
            case "ready":
                reply(beat_s=fleet.beat_s)
            case "beats":
                reply(beats=fleet.beats, at=time.monotonic())
            case "workers":
                reply(changed=await fleet.change_workers(asked["part"]))
            case "program":
                began_ns, key = await fleet.change_program(asked["machine"], away=asked["away"])
                reply(began_ns=began_ns, key=key)
    beating.cancel()
    await r.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
