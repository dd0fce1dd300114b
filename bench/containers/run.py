"""Brings the same containers up by turns: by `emp apply`, and by `docker compose up --wait` with emp's own file."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import redis
from msgspec import Struct

from bench.queue.server import free_port
from bench.reconcile.children import COMMAND_S, Failed, run_command
from emp_orch import settings
from emp_orch.layout import Layout
from emp_orch.store.fleet.events import decode

EMP_ALL = "emp apply, nothing runs"
EMP = "emp apply, control plane runs"
COMPOSE = "docker compose up --wait"

LOOK_S = 0.005

_YAML = """\
version: 1
name: bench-boxes
redis: {{port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
  comfyui: {{scale: per_gpu, builtin: simulation, port: 8188, health: {{http: /system_stats}}}}
defaults: {{runtime: compose, image: "{image}", services: [simulation, comfyui]}}
machines: {{{machines}}}
"""


class Plan(Struct, frozen=True, kw_only=True):
    machines: int = 2
    gpus: int = 2
    rounds: int = 5


class Took(Struct, frozen=True, kw_only=True):
    """Seconds from the command's start until it returned, and until the last worker was idle."""

    what: str
    returned_s: float
    idle_s: float


class Boxes:
    """A fleet in a folder of its own, and how it is brought up and away."""

    def __init__(self, folder: Path, plan: Plan, image: str) -> None:
        self.folder = folder
        self.plan = plan
        self._ports = {name: free_port() for name in ("redis", "api", "monitor")}
        self._image = image

    def write(self, machines: int) -> None:
        named = ", ".join(f"box-{n}: {{num_gpus: {self.plan.gpus}}}" for n in range(machines))
        text = _YAML.format(image=self._image, machines=named, **self._ports)
        (self.folder / "emp.yaml").write_text(text)

    def emp(self, *words: str) -> None:
        run_command(sys.executable, "-m", "emp_orch", "-C", str(self.folder), *words, cwd=self.folder)

    def compose(self, *words: str) -> None:
        file = Layout(self.folder).hosts / "local" / "compose.yaml"
        run_command("docker", "compose", "--file", str(file), *words, cwd=self.folder)

    # -- one turn of each

    def by_emp_alone(self) -> Took:
        self.write(self.plan.machines)
        self.emp("down")
        return self._timed(EMP_ALL, lambda: self.emp("apply", "-y"))

    def by_emp(self) -> Took:
        self.write(0)
        self.emp("apply", "-y", "--prune", "--allow-empty")
        self.write(self.plan.machines)
        return self._timed(EMP, lambda: self.emp("apply", "-y"))

    def by_compose(self) -> Took:
        """The reconciler looks on: it is paused, so that it starts nothing."""
        self.emp("pause", "--reason", "docker compose is measured")
        try:
            self.compose("down", "--volumes")
            return self._timed(COMPOSE, lambda: self.compose("up", "--detach", "--wait"))
        finally:
            self.emp("resume")

    def _timed(self, what: str, act: Callable[[], None]) -> Took:
        """Both times are of this host's clock, which Redis has too: it runs here."""
        began = time.time()
        act()
        returned = time.time()
        return Took(what=what, returned_s=returned - began, idle_s=self._idle_at(began) - began)

    def _idle_at(self, since_s: float) -> float:
        """When the last worker said that it is idle; waits for that."""
        workers, deadline = self.plan.machines * self.plan.gpus, time.monotonic() + COMMAND_S
        with redis.Redis.from_url(self._redis_url(), decode_responses=True) as r:
            while len(first := _first_idle(r, int(since_s * 1000))) < workers:
                if time.monotonic() > deadline:
                    raise Failed(f"{len(first)} of {workers} workers were idle within {COMMAND_S} s")
                time.sleep(LOOK_S)
        return max(first.values()) / 1000

    def _redis_url(self) -> str:
        """The embedded one's, with the password that it wants."""
        return settings.load(Layout(self.folder)).redis_url


def _first_idle(r: redis.Redis, since_ms: int) -> dict[str, int]:
    """When each worker told first that it is idle."""
    found: dict[str, int] = {}
    for entry_id, fields in cast(Any, r.xrange("events", min=f"{since_ms}-0")):
        event = decode(entry_id, fields)
        if event.type == "worker_status" and event.data.get("status") == "idle":
            found.setdefault(str(event.data.get("worker_id")), event.at_ms)
    return found


def run(plan: Plan, image: str, say: Callable[[str], None]) -> list[Took]:
    """All turns, in rounds. Raises Failed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="emp-bench-") as folder:
        boxes = Boxes(Path(folder), plan, image)
        boxes.write(plan.machines)
        try:
            boxes.emp("apply", "-y")  # not counted: the network, the first start of everything
            for number in range(plan.rounds):
                for turn in (boxes.by_emp_alone, boxes.by_emp, boxes.by_compose):
                    took = turn()
                    say(f"round {number + 1}: {took.what}: {took.returned_s:.1f} s, all idle {took.idle_s:.1f} s")
                    found.append(took)
        finally:
            boxes.emp("down")
    return found
