"""A whole fleet as a user has it: a folder with the default emp.yaml on free ports, and `emp` run as a process."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import redis

from emp_orch.control.plane.embedded_login import kept_password
from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, alive, recorded
from emp_orch.resources import read_text
from emp_orch.urls import with_login

MACHINE = "basic-machine-local"
DEADLINE_S = 60.0
# Below the range the kernel takes outgoing ports from, so that no connection takes one of ours.
# A part of it for each process of a test run: between looking for a free port and taking it another may come.
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARE = 12_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(20_000 + _PROCESS * _SHARE, 20_000 + (_PROCESS + 1) * _SHARE)
SLOTS = 20

T = TypeVar("T")


def until(
    what: str, look: Callable[[], T | None], *, within_s: float = DEADLINE_S, shown: Callable[[], str] = lambda: ""
) -> T:
    """The first true answer of `look`; fails naming `what`, with what is `shown` then."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}\n{shown()}"
        time.sleep(0.05)
    return found


def sleeps(pid: int) -> bool:
    """Whether the process is blocked: at every one of some looks, so not for the moment that a lock takes."""
    stat = Path(f"/proc/{pid}/stat")
    return all(stat.read_text().rpartition(")")[2].split()[0] == "S" for _ in range(200))


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for _ in range(200):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Stack:
    """One fleet's folder. Nothing runs until `up`; whoever makes one brings it down."""

    def __init__(self, folder: Path, *, name: str = "test") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root = folder.absolute()
        self.layout = Layout(self.root)
        self.file = self.root / "emp.yaml"
        first = free_ports(4 + SLOTS)
        self.ports = {
            "redis": first,
            "api": first + 1,
            "monitor": first + 2,
            "simulation": first + 3,
            "comfyui": first + 4,
        }
        self.file.write_text(self._config(name))

    def _config(self, name: str) -> str:
        """The default emp.yaml with ports of our own, and health checks that tell soon: these are not at work."""
        text = read_text("emp.yaml")
        for old, new in (
            ("name: basic\n", f"name: {name}\n"),
            ("url: embedded ", f"port: {self.ports['redis']}\n  url: embedded "),
            ("port: 3331", f"port: {self.ports['api']}"),
            ("port: 3333", f"port: {self.ports['monitor']}"),
            ("port: 8299", f"port: {self.ports['simulation']}"),
            ("port: 8188 ", f"port: {self.ports['comfyui']} "),
            ("timeout: 5s, failures: 12, startup: 10m", "timeout: 1s, failures: 3, startup: 60s"),
        ):
            assert old in text, old
            text = text.replace(old, new, 1)
        return text

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    @property
    def monitor(self) -> str:
        return f"http://127.0.0.1:{self.ports['monitor']}"

    @property
    def redis_url(self) -> str:
        """With the fleet's login, once there is one."""
        return with_login(self.redis_without_login, "", kept_password(self.layout))

    @property
    def redis_without_login(self) -> str:
        return f"redis://127.0.0.1:{self.ports['redis']}/0"

    # -- the command

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "emp_orch", "-C", str(self.root), *args]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`emp ARGS…` in this folder, to its end; `env` is added to the environment."""
        return subprocess.run(
            self.argv(*args),
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env},
        )

    def ok(self, *args: str, **env: str) -> str:
        """What `emp ARGS…` printed; it must have succeeded."""
        done = self.run(*args, **env)
        assert done.returncode == 0, f"emp {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self, boxes_to_join: bool = False, /, **env: str) -> None:
        """`boxes_to_join`: all but them is up; only a person can start those."""
        done = self.run("apply", "-y", "--timeout", "120", **env)
        told = f"{done.stdout}{done.stderr}"
        assert done.returncode == (1 if boxes_to_join else 0), f"{told}{self.log_ends()}"
        assert ("yet to join" in done.stdout) is boxes_to_join, told

    def diff(self) -> tuple[int, dict[str, Any]]:
        """Exit code and document of `emp diff --json`."""
        done = self.run("diff", "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def until_in_sync(self, *, within_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + within_s
        while (last := self.run("diff")).returncode != 0:
            told = f"emp diff: exit {last.returncode}\n{last.stdout}{last.stderr}"
            assert time.monotonic() < deadline, f"not in sync within {within_s:g} s; {told}"
            time.sleep(0.05)

    def log_ends(self, *, lines: int = 15) -> str:
        """The ends of all logs, for a failed assertion."""
        found = []
        for path in sorted(self.layout.logs.rglob("*.log")):
            end = path.read_text(errors="replace").splitlines()[-lines:]
            found += [f"--- {path.relative_to(self.layout.logs)}", *end]
        return "\n".join(["", *found])

    # -- what runs

    async def state(self) -> dict[str, Any]:
        """`data` of /api/monitor/state."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.api}/api/monitor/state") as answer:
            assert answer.status == 200
            data: dict[str, Any] = (await answer.json())["data"]
            return data

    def redis_reports(self) -> tuple[list[str], list[str]]:
        """The ids of all machines and workers that Redis has reports of."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as r:
            return sorted(r.hkeys("machines")), sorted(r.hkeys("workers"))

    def program(self, name: str, machine: str = MACHINE) -> ProcessIdentity:
        """The living process of a machine's program; `agent` and `supervisord` count as programs."""
        return _living(self.layout.machine(machine) / "run" / name)

    def control(self, name: str) -> ProcessIdentity:
        """The living process of a daemon of the control plane, or of its supervisord."""
        return _living(self.layout.control / "run" / name)

    def running(self, pattern: str) -> list[int]:
        """The processes of this fleet whose command line holds `pattern`."""
        return [pid for pid, command in self._processes() if pattern in command]

    def leftovers(self) -> list[str]:
        """Every process that belongs to this folder, `pid command`."""
        return [f"{pid} {command}" for pid, command in self._processes()]

    def _processes(self) -> list[tuple[int, str]]:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                with suppress(OSError):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if command and self._is_ours(process):
                        found.append((int(process.name), command))
        return sorted(found)

    def _is_ours(self, process: Path) -> bool:
        """Whether it works in our folder, or was started with it in its environment."""
        if process.joinpath("cwd").readlink().is_relative_to(self.root):
            return True
        variables = (process / "environ").read_bytes().split(b"\0")
        names = ("EMP_ROOT", "EMP_MACHINE_DIR", "EMP_RUN_DIR", "EMP_FLEET_FOLDER")
        ours = [f"{name}={self.root}".encode() for name in names]
        return any(v == start or v.startswith(start + b"/") for v in variables for start in ours)


def _living(path: Path) -> ProcessIdentity:
    def look() -> ProcessIdentity | None:
        who = recorded(path)
        return who if who is not None and alive(who) else None

    return until(f"a living process of {path.parent.parent.name}/{path.name}", look)
