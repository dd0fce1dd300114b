"""One run: a fleet of one slot in a folder of its own, and the talks with it in shuffled rounds."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
from msgspec import Struct

from bench.comfyui import talks
from bench.comfyui.talks import Addresses, Talk
from bench.queue.report import Machine, measured_on
from bench.queue.server import free_port
from bench.reconcile.children import run_command

Say = Callable[[str], None]

_YAML = """\
version: 1
name: bench-comfyui
redis: {{port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  comfyui: {{scale: per_gpu, port: {comfyui}, {service}}}
machines: {{bench: {{num_gpus: 1, services: [comfyui]}}}}
"""


class Plan(Struct, frozen=True, kw_only=True):
    """`warm` talks of each kind come first and are not counted. `pause_ms` between two talks: what the one before left
    to do (ComfyUI collects garbage, a journal is written) is done.
    """

    rounds: int = 100
    commands: int = 30
    warm: int = 5
    pause_ms: int = 50


FULL = Plan()
SMOKE = Plan(rounds=3, commands=2, warm=1)


class Took(Struct, frozen=True, kw_only=True):
    what: str
    ms: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.ms)

    @property
    def p95_ms(self) -> float:
        return sorted(self.ms)[min(len(self.ms) - 1, int(len(self.ms) * 0.95))]


class Report(Struct, frozen=True, kw_only=True):
    plan: Plan
    machine: Machine
    comfyui: str
    took: tuple[Took, ...]


async def _version(at: Addresses) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{at.comfyui}/system_stats") as answer:
        return str((await answer.json())["system"].get("comfyui_version", "unknown"))


async def _timed(at: Addresses, plan: Plan, say: Say) -> tuple[Took, ...]:
    async with AsyncExitStack() as open_:
        session = await open_.enter_async_context(aiohttp.ClientSession())
        socket = await open_.enter_async_context(session.ws_connect(f"{at.comfyui}/ws?clientId=bench"))
        kinds: dict[str, tuple[Talk, int]] = {
            talks.DIRECT: (partial(talks.direct, session, at, socket), plan.rounds),
            talks.STREAM: (partial(talks.stream, session, at), plan.rounds),
            talks.WAIT: (partial(talks.wait, session, at), plan.rounds),
            talks.COMMAND: (partial(talks.command, at), plan.commands),
        }
        for talk, _ in kinds.values():
            for _ in range(plan.warm):
                await talk()
        order = [name for name, (_, times) in kinds.items() for _ in range(times)]
        random.Random(1).shuffle(order)
        took: dict[str, list[float]] = {name: [] for name in kinds}
        for name in order:
            await asyncio.sleep(plan.pause_ms / 1_000)
            began = time.perf_counter()
            async with asyncio.timeout(talks.TALK_S):
                await kinds[name][0]()
            took[name].append(1_000 * (time.perf_counter() - began))
    found = tuple(Took(what=name, ms=tuple(ms)) for name, ms in took.items())
    for one in found:
        say(f"{one.what}: p50 {one.p50_ms:.1f} ms")
    return found


def _service(checkout: Path | None, python: Path | None) -> str:
    if checkout is None:
        return "builtin: simulation"
    interpreter = f', python: "{python.absolute()}"' if python else ""
    return f'builtin: comfyui, path: "{checkout.absolute()}", args: [--cpu]{interpreter}'


def run(plan: Plan, checkout: Path | None, python: Path | None, say: Say) -> Report:
    """`checkout`: of the real ComfyUI, with its interpreter; None: the simulation stands in."""
    before = os.getloadavg()
    folder = Path(tempfile.mkdtemp(prefix="emp-bench-"))
    ports = {name: free_port() for name in ("redis", "api", "monitor", "comfyui")}
    (folder / "emp.yaml").write_text(_YAML.format(service=_service(checkout, python), **ports))
    at = Addresses(
        api=f"http://127.0.0.1:{ports['api']}", comfyui=f"http://127.0.0.1:{ports['comfyui']}", folder=folder
    )
    emp = (sys.executable, "-m", "emp_orch", "-C", str(folder))
    try:
        run_command(*emp, "apply", "-y", cwd=folder)
        version = asyncio.run(_version(at))
        took = asyncio.run(_timed(at, plan, say))
        machine = measured_on("embedded", before, None)
    finally:
        run_command(*emp, "down", cwd=folder)
        shutil.rmtree(folder)
    what = f"ComfyUI {version}" if checkout else "the simulation"
    return Report(plan=plan, machine=machine, comfyui=what, took=took)
