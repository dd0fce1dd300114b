"""Where one fleet keeps its files: `.emp/` for state, `logs/` for logs, beside its emp.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one fleet's folder. `root` is the folder that holds emp.yaml, absolute."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / ".emp"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def control(self) -> Path:
        """The control plane's supervisord: config, socket, identity."""
        return self.state / "control"

    @property
    def settings(self) -> Path:
        """0600: how the daemons reach Redis, where they listen (see settings.Settings)."""
        return self.control / "settings.json"

    @property
    def secrets(self) -> Path:
        """0600: resolved values of secret references, for the runtimes."""
        return self.control / "secrets.json"

    @property
    def redis(self) -> Path:
        return self.state / "redis"

    @property
    def redis_password(self) -> Path:
        """0600: the password of the embedded Redis, made once, alone in its file, for people too (docs/redis.md)."""
        return self.control / "redis.password"

    @property
    def artifacts(self) -> Path:
        """What jobs made, when emp.yaml names no other store."""
        return self.state / "artifacts"

    @property
    def artifacts_url(self) -> str:
        """The same as a URL; not percent-encoded, since fsspec does not decode."""
        return f"file://{self.artifacts}"

    @property
    def packages(self) -> Path:
        """Worker packages that the API serves."""
        return self.state / "packages"

    def package(self, digest: str) -> Path:
        return self.packages / f"{digest}.tar"

    def package_scripts(self, digest: str) -> Path:
        """What those who run from that package send to Redis."""
        return self.packages / f"{digest}.scripts"

    @property
    def generation(self) -> Path:
        """The last published generation, so that an emptied Redis can be filled again."""
        return self.state / "generation.json"

    @property
    def counted(self) -> Path:
        """How many jobs there were, so that it is told when Redis has lost them."""
        return self.control / "jobs.json"

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    @property
    def hosts(self) -> Path:
        """What is kept of each Docker host: its compose file, and what that is made from."""
        return self.state / "hosts"

    def machine(self, machine_id: str) -> Path:
        return self.machines / machine_id

    def pool(self, name: str) -> Path:
        """The folder of a box of that pool here: whichever member it is."""
        return self.state / "pools" / name

    def log(self, component: str) -> Path:
        """`component` is redis, api, monitor, reconcile, machine-{id} or monitorEventStream."""
        return self.logs / f"{component}.log"
