"""Who keeps the same small program alive: emp, supervisord alone, pm2. Each runs SLOTS of it, in its own folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from msgspec import Struct

from bench.peers import setup
from bench.queue.processes import last_words
from bench.queue.server import free_port
from bench.reconcile.children import Failed, daemon, environment
from bench.reconcile.pulses import Pulses

EMP = "emp"
SUPERVISORD = "supervisord alone"
PM2 = "pm2"

SLOTS = 2
MACHINE = "bench"
APPLY_S = 120


class Ground(Struct, frozen=True, kw_only=True):
    """What a contender is started with: its folder, the pulses, the bench's Redis, the installed peers."""

    folder: Path
    pulses: Pulses
    redis_url: str
    cache: Path
    simulation_port: int


def slot_name(contender: str, slot: int) -> str:
    return f"{contender.split()[0]}-{slot}"


@contextmanager
def supervisord(ground: Ground) -> Iterator[None]:
    """supervisord with its own defaults; the interpreter and version that emp uses."""
    lines = ["[supervisord]", "nodaemon=true", "silent=true", "logfile=supervisord.log", "pidfile=supervisord.pid"]
    for slot in range(SLOTS):
        name = slot_name(SUPERVISORD, slot)
        lines += [f"[program:{name}]", f"command={' '.join(ground.pulses.argv(name))}", "autorestart=true"]
    conf = ground.folder / "supervisord.conf"
    conf.write_text("\n".join(lines) + "\n")
    argv = (sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(conf))
    with daemon(argv, log=ground.folder / "supervisord-out.log"):
        yield


@contextmanager
def pm2(ground: Ground) -> Iterator[None]:
    """pm2 in the foreground, as in a container, with its own defaults."""
    names = [slot_name(PM2, slot) for slot in range(SLOTS)]
    apps = [
        {"name": n, "script": argv[1], "args": list(argv[2:]), "interpreter": argv[0]}
        for n in names
        for argv in [ground.pulses.argv(n)]
    ]
    conf = ground.folder / "pm2.config.json"
    conf.write_text(json.dumps({"apps": apps}))
    program = setup.folder(ground.cache, PM2) / "node_modules" / ".bin" / "pm2-runtime"
    env = environment(PM2_HOME=str(ground.folder / "pm2"), PM2_DISABLE_VERSION_CHECK="true")
    with daemon((str(program), "start", str(conf)), log=ground.folder / "pm2.log", env=env):
        yield


_YAML = """\
version: 1
name: bench-heal
redis: {{url: {redis}}}
api: {{host: 127.0.0.1, port: {api}}}
monitor: {{host: 127.0.0.1, port: {monitor}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: {simulation}}}
  pulse: {{scale: per_gpu, command: {command}}}
machines:
  {machine}: {{runtime: process, num_gpus: {slots}, services: [simulation, pulse]}}
"""


@contextmanager
def emp(ground: Ground) -> Iterator[None]:
    """A whole emp, as `emp apply` brings it up: control plane, one machine, its agent, services and workers."""
    (ground.folder / "emp.yaml").write_text(
        _YAML.format(
            redis=ground.redis_url,
            api=free_port(),
            monitor=free_port(),
            simulation=ground.simulation_port,
            command=json.dumps(ground.pulses.argv(f"{EMP}-${{gpu}}")),
            machine=MACHINE,
            slots=SLOTS,
        )
    )
    try:
        _emp(ground.folder, "apply", "-y")
        # What is killed every few seconds is flapping, and the reconciler would stop it. Replacing is the agent's part.
        _emp(ground.folder, "pause", "--reason", "kills are measured")
        yield
    finally:
        _emp(ground.folder, "down")


def _emp(folder: Path, *words: str) -> None:
    env = {k: v for k, v in environment().items() if k not in ("HUB_REDIS_URL", "REDIS_URL")}
    argv = (sys.executable, "-m", "emp_orch", "-C", str(folder), *words)
    try:
        done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=APPLY_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"emp {words[0]} did not end in {APPLY_S} s") from None
    if done.returncode:
        raise Failed(f"emp {words[0]} ended with {done.returncode}: {last_words(done.stderr)}")


# How each is started; emp is always there, the others are its measure.
STARTS: dict[str, Callable[[Ground], AbstractContextManager[None]]] = {EMP: emp, SUPERVISORD: supervisord, PM2: pm2}
