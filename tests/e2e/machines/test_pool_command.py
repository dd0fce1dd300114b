"""Two pools whose boxes a user's own program starts: real members of this host, which run real jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from emp_orch.procident import end_recorded
from support.pools import boxes_host, boxes_program
from support.stack.stack import Stack, free_ports, until

JOBS = 10
KEY = "open-sesame-of-ours"
# One box a pool: two on one host would want the same ports.
FLEET = """\
version: 1
name: rented
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}, machine_url: "http://127.0.0.1:{api}"}}
monitor: {{port: {monitor}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: {simulation}}}
machines: {{}}
defaults: {{num_gpus: 1, services: [simulation], worker: {{drain_timeout: 5s}}}}
pools:
  cheap: &rented
    provider: command
    provider_options:
      command: ["{python}", ./boxes.py, ./engine, "{python}", -m, emp_orch, machine, --stay]
      timeout: 20s
      every: 1s
      env: {{BOXES_KEY: {{env: RENT_KEY}}}}
    size: 0..1
    scale: {{jobs_per_gpu: 1, up_after: 0s, down_after: 3s}}
    forget_after: 60s
  dear:
    <<: *rented
    cost: 2
    ports: {{simulation: {other}}}
    health_port: {health}
reconcile: {{interval: 1s}}
"""


class Rented:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.engine = stack, stack.root / "engine"
        shutil.copy(str(boxes_program.__file__), stack.root / "boxes.py")
        other = free_ports(2)
        stack.file.write_text(FLEET.format(**stack.ports, python=sys.executable, other=other, health=other + 1))
        self.engine.mkdir()
        (self.engine / "key").write_text(KEY)

    def apply(self, key: str) -> None:
        self.stack.ok("apply", "-y", "--timeout", "60", RENT_KEY=key)

    def engine_says(self, pool: str) -> str:
        ((found),) = json.loads(self.stack.ok("pools", pool, "--json"))
        return str(found.get("engine", ""))

    def why_short(self) -> str:
        found = (d["failed"] for d in self.stack.diff()[1]["drift"] if d["drift"]["kind"] == "pool-short")
        return next((str(f) for f in found if f), "")

    def requests(self) -> list[str]:
        return (self.engine / "requests").read_text().splitlines()

    def living(self) -> list[Path]:
        return [path for path in self.engine.glob("*/*.pid") if boxes_program.alive(path)]

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.stack.ok("jobs", "--limit", "100", "--json"))["jobs"]
        return found

    def told(self) -> str:
        """For a failed wait."""
        logs = [p.read_text(errors="replace")[-2_000:] for p in self.engine.rglob("*.log")]
        return "\n".join([self.stack.run("pools").stdout, self.stack.run("jobs").stdout, *logs, self.stack.log_ends()])

    def end(self) -> None:
        for path in self.living():
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        end_recorded(sorted(self.engine.glob("*/*/.emp/pools/*/run/*")), grace_s=5.0)


@pytest.fixture
def rented(folder_stack: Stack) -> Iterator[Rented]:
    made = Rented(folder_stack)
    try:
        yield made
    finally:
        made.end()


def test_a_users_program_gives_boxes_that_run_jobs_and_takes_them_back(rented: Rented) -> None:
    stack = rented.stack
    rented.apply("a-wrong-key")
    said = until("its refusal is shown", lambda: rented.engine_says("cheap"), shown=rented.told)
    assert said.endswith("exited with status 1 at list: 401: *** is no key")

    rented.apply(KEY)
    ids = {f"j{n}" for n in range(JOBS)}
    for name in sorted(ids):
        stack.ok("submit", "simulation", "--id", name, "--payload", json.dumps({"steps": 20}), "--retries", "3")
    until("a box of each pool", lambda: len(rented.living()) == 2, shown=rented.told)
    until("all ended", lambda: {j["status"] for j in rented.jobs()} == {"completed"}, within_s=120, shown=rented.told)
    assert {j["id"] for j in rented.jobs()} == ids
    by = {json.loads(stack.ok("jobs", "show", name, "--json"))["worker_id"].partition("-")[0] for name in ids}
    assert by == {"cheap", "dear"}
    events = map(json.loads, stack.ok("events", "-n", "1000", "--json").splitlines())
    assert sorted(e["data"]["job_id"] for e in events if e["type"] == "job_completed") == sorted(ids)

    until("nobody is left", lambda: not list(rented.engine.glob("*/*.pid")), within_s=120, shown=rented.told)
    assert len([line for line in rented.requests() if line.startswith("create")]) == 2


def test_a_refusal_is_drift_and_boxes_of_a_pool_that_goes_are_given_back(rented: Rented) -> None:
    stack = rented.stack
    (rented.engine / "full").touch()
    rented.apply(KEY)
    stack.ok("scale", "cheap", "1")
    said = until("its words in the drift", rented.why_short, shown=rented.told)
    assert said.endswith("exited with status 1 at create: no node has a free gpu")
    (rented.engine / "full").unlink()
    until("a box", rented.living, shown=rented.told)
    # Nothing names the key any more: whoever asks the program knows it still.
    stack.file.write_text(stack.file.read_text().partition("pools:\n")[0])
    stack.ok("apply", "-y", "--timeout", "60")
    assert "RENT_KEY" not in stack.layout.secrets.read_text()
    until("it is given back", lambda: not rented.living(), shown=rented.told)
    assert KEY not in "".join(path.read_text(errors="replace") for path in stack.layout.logs.rglob("*.log"))


@pytest.fixture
def apart(rented: Rented) -> Iterator[Rented]:
    """Its boxes are those of a service that runs beside emp: what the reconciler began ends with it."""
    stack = rented.stack
    shutil.copy(str(boxes_host.__file__), stack.root / "host.py")
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/boxes"
        text = stack.file.read_text()
        argv = [sys.executable, "./host.py", "serve", address, "./engine", sys.executable, "-m", "emp_orch", "machine"]
        with subprocess.Popen([*argv, "--stay"], cwd=stack.root, stdout=subprocess.PIPE) as host:
            assert host.stdout is not None and host.stdout.readline() == b"ready\n"
            before, _, rest = text.partition("      command: ")
            stack.file.write_text(
                f'{before}      command: ["{sys.executable}", ./host.py, ask, "{address}"]\n{_next(rest)}'
            )
            try:
                yield rented
            finally:
                host.kill()


def _next(text: str) -> str:
    return text.partition("\n")[2]


def test_a_fleet_that_goes_down_gives_its_boxes_back(apart: Rented) -> None:
    """While the API is there, so that they go in good order. Where the engine refuses, the rest goes down."""
    stack = apart.stack
    apart.apply(KEY)
    stack.ok("scale", "cheap", "1")
    until("a box works", lambda: "1 ready" in stack.ok("pools", "cheap"), shown=apart.told)
    stack.layout.generation.write_text("nonsense")  # Redis knows the pools still
    down = stack.run("down")
    assert down.returncode == 0, down.stderr
    assert "the fleet is down (cheap-" in down.stdout
    assert not apart.living()
    # Once to end it, and once it had ended: this engine lists it until then.
    assert [r.split()[0] for r in apart.requests() if not r.startswith("list")] == ["create", "remove", "remove"]
    assert list(apart.engine.glob("*/*.pid")) == []
    (console,) = apart.engine.glob("*/*/console.log")
    assert "could not say that this box goes" not in console.read_text()

    unknown = stack.run("apply", "-y", RENT_KEY=KEY)
    assert unknown.returncode == 1 and "generation 1 of fleet rented, which this folder did not know" in unknown.stderr
    apart.apply(KEY)
    until("a box works again", lambda: "1 ready" in stack.ok("pools", "cheap"), within_s=90, shown=apart.told)
    settings = stack.layout.settings.read_text()
    (apart.engine / "key").write_text("another")
    refused = stack.run("down")
    assert refused.returncode == 1, refused.stderr
    (member_id,) = {path.stem for path in apart.living()}
    assert f"pool cheap, whose members by the last word of Redis are {member_id}: " in refused.stderr
    assert "pool dear: " in refused.stderr and "401: *** is no key" in refused.stderr
    assert "`emp down` again" in refused.stderr
    assert len(apart.living()) == 1
    (apart.engine / "key").write_text(KEY)
    stack.layout.settings.write_text("{")
    blind = stack.run("down")
    assert blind.returncode == 1 and f"pool cheap: {stack.layout.settings} is damaged" in blind.stderr, blind.stderr
    stack.layout.settings.write_text(settings)
    again = stack.run("down")  # Redis is away by now, and the engine asked all the same
    assert again.returncode == 0 and "the fleet is down (cheap-" in again.stdout, again.stderr
    assert not apart.living()
