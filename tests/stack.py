"""A whole fleet as a user has it: a folder with an emp.yaml on free ports, and `emp` called as a process."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from emp_orch.layout import Layout
from emp_orch.procident import ProcessIdentity, recorded
from emp_orch.runtimes.supervisor import Supervisor

# Below the range the kernel takes outgoing ports from, so that no connection takes one of ours.
PORTS = range(20_000, 32_000)
SLOTS = 16


def free_block(size: int) -> int:
    """The first of `size` ports in a row that nobody listens on."""
    for _ in range(200):
        first = random.randrange(PORTS.start, PORTS.stop - size)
        if all(_is_free(port) for port in range(first, first + size)):
            return first
    raise AssertionError(f"no {size} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Stack:
    """One fleet's folder. `up` and `down` are `emp apply -y` and `emp down`; both assert that they worked."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "testfleet",
        machines: tuple[str, ...] = ("basic-machine-local",),
        num_gpus: int = 2,
        **more: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root = folder
        self.layout = Layout(folder.absolute())
        self.name = name
        self.machines = machines
        first = free_block(3 + len(machines) * (1 + SLOTS))
        self.redis_port, self.api_port, self.monitor_port = first, first + 1, first + 2
        ports = {
            machine: {"simulation": start, "comfyui": start + 1}
            for i, machine in enumerate(machines)
            for start in [first + 3 + i * (1 + SLOTS)]
        }
        self.ports = ports
        self.config: dict[str, Any] = {
            "version": 1,
            "name": name,
            "redis": {"url": "embedded", "port": self.redis_port},
            "api": {"host": "127.0.0.1", "port": self.api_port},
            "monitor": {"host": "127.0.0.1", "port": self.monitor_port},
            "services": {
                "simulation": {"scale": "per_machine", "builtin": "simulation", "port": 8299},
                "comfyui": {
                    "scale": "per_gpu",
                    "builtin": "simulation",
                    "port": 8188,
                    "health": {
                        "http": "/system_stats",
                        "interval": "2s",
                        "timeout": "1s",
                        "failures": 3,
                        "startup": "60s",
                    },
                },
            },
            "machines": {
                machine: {
                    "runtime": "process",
                    "num_gpus": num_gpus,
                    "services": ["simulation", "comfyui"],
                    "ports": ports[machine],
                }
                for machine in machines
            },
            "reconcile": {"interval": "1s", "stale_after": "10s"},
        }
        self.config.update(more)
        self.write()

    def write(self) -> None:
        """Write `config` to emp.yaml; change it before to change the fleet."""
        (self.root / "emp.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def monitor_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor_port}"

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "emp_orch", "-C", str(self.root), *args]

    def run(
        self, *args: str, env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """`emp ARGS…` in the fleet's folder, to its end."""
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            self.argv(*args),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def up(self, *args: str, env: Mapping[str, str] | None = None) -> None:
        done = self.run("apply", "-y", "--timeout", "90", *args, env=env)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def down(self) -> None:
        if self.layout.settings.exists():
            done = self.run("down")
            assert done.returncode == 0, done.stdout + done.stderr

    def logs(self, *, last: int = 15) -> str:
        """The ends of all logs, for a failed assertion."""
        found = []
        for path in sorted(self.layout.logs.rglob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-last:]
            found += [f"--- {path.relative_to(self.layout.logs)}", *lines]
        return "\n".join(["", *found])

    def supervisor(self, machine_id: str | None = None) -> Supervisor:
        """The supervisord of a machine, or of the control plane."""
        return Supervisor(self.layout.control if machine_id is None else self.layout.machine(machine_id))

    def identity(self, program: str, machine_id: str | None = None) -> ProcessIdentity | None:
        """Who the process of a program is, as its launcher wrote it down; `supervisord` is one of them."""
        folder = self.layout.control if machine_id is None else self.layout.machine(machine_id)
        return recorded(folder / "run" / program)


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Stack]:
    """A stack that is up, and down again at the end whatever happens."""
    stack = Stack(folder, **options)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
