"""One real machine in a container, without a control plane: what a reconciler would send it comes from the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.images import MACHINE_IMAGE
from emp_orch.store.redis.client import Client
from support.docker.engine import Engine
from support.machine.machine import KEYS, Box, M
from support.redis.server import Server

PASSWORD = "s3cret-of-redis"
_SHOW_LOGS = """
import pathlib
for path in sorted(pathlib.Path("/var/lib/emp-own/logs").rglob("*.log")):
    print("---", path.name, path.read_text()[-2000:], sep="\\n")
"""
# The user of the image.
USER = 10001


class GatewayRedis(Server):
    """A Redis with a password, that containers of `engine` reach as host.docker.internal."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__("redis", folder)
        self.argv += ["--bind", engine.gateway, "127.0.0.1", "--requirepass", PASSWORD]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.seen_by_containers = f"redis://:{PASSWORD}@host.docker.internal:{self.port}/0"


@contextmanager
def gateway_redis(engine: Engine, folder: Path) -> Iterator[GatewayRedis]:
    folder.mkdir(parents=True, exist_ok=True)
    server = GatewayRedis(engine, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Container(Box):
    """A machine in a container with all that can be taken from it taken: root, capabilities, a root to write on."""

    def __init__(
        self, engine: Engine, folder: Path, r: Client, server: GatewayRedis, *, options: tuple[str, ...] = ()
    ) -> None:
        """`options`: more words of `docker run`."""
        super().__init__(folder, r, server.url)
        self.engine = engine
        self.id = ""
        self._options = options
        self._seen = server.seen_by_containers
        self._secret = folder / "hub_redis_url"

    async def start(self, machine: DesiredMachine) -> None:
        await self.write(machine)
        self._secret.write_text(self._seen)
        orders = self.root / "orders.json"
        for private in (self._secret, orders):
            private.chmod(0o600)
            os.chown(private, USER, USER)
        env = {
            "MACHINE_ID": M,
            "HUB_REDIS_URL": self._seen.replace(f":{PASSWORD}@", ""),
            "HUB_REDIS_URL_FILE": "/run/secrets/hub_redis_url",
            "EMP_ORDERS": "/run/secrets/orders.json",
            "EMP_REDIS_PREFIX": KEYS.prefix,
            "EMP_ARTIFACTS_URL": "file:///var/lib/emp/artifacts",
        }
        self.id = self.engine.docker(
            *("run", "--detach", "--init", "--read-only", "--tmpfs", "/tmp"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--add-host", "host.docker.internal:host-gateway"),
            *("--volume", f"{self._secret}:/run/secrets/hub_redis_url:ro"),
            *("--volume", f"{orders}:/run/secrets/orders.json:ro"),
            *("--health-interval", "1s"),
            *(word for name, value in env.items() for word in ("--env", f"{name}={value}")),
            *self._options,
            MACHINE_IMAGE,
        ).strip()

    async def stop(self) -> None:
        if self.id:
            self.engine.docker("rm", "--force", "--volumes", self.id)

    @property
    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`."""
        return str(self.engine.inspect(self.id)["State"]["Health"]["Status"])

    def exec(self, *argv: str) -> str:
        return self.engine.docker("exec", self.id, *argv)

    def environ(self, program: str) -> str:
        """The environment of a program, as its own user sees it."""
        read = f"import pathlib; pid = pathlib.Path('/var/lib/emp-own/machine/run/{program}').read_text().split()[0]"
        return self.exec("python3", "-c", f"{read}; print(pathlib.Path('/proc', pid, 'environ').read_text())")

    def logs(self) -> str:
        """What `docker logs` shows, and what its programs wrote."""
        inside = self.exec("python3", "-c", _SHOW_LOGS) if self.engine.status(self.id) == "running" else ""
        return self.said() + inside

    def said(self) -> str:
        return self.engine.docker("logs", self.id, both=True)
